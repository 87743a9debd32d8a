// Command node is a node's processes for tests: the same packages, wired with a
// JSON configuration in place of the product's flags.
package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"

	"quire"
	"quire/apps/keep"
	"quire/compute"
	"quire/compute/environment"
	"quire/compute/remote"
	"quire/spawner"
	"quire/spawner/launch"
	"quire/ticket"
)

type config struct {
	Node                                             quire.NodeID
	Keys, Identity                                   string
	RunDir, StateDir, ProjectRoot, AppsDir, Skeleton string
	Socket, Self                                     string
	Single                                           bool
	Peer, Group                                      uint32
	Limits                                           string
	Memory                                           int64
}

func main() {
	switch os.Args[1] {
	case "shim":
		os.Exit(launch.Shim())
	case "keep":
		os.Exit(keep.Main(os.Args[2:]))
	case "helper":
		os.Exit(environment.Main(os.Args[2:]))
	}
	var c config
	err := json.Unmarshal([]byte(os.Args[2]), &c)
	if err == nil {
		err = map[string]func(config) error{"spawner": runSpawner, "compute": runCompute}[os.Args[1]](c)
	}
	fmt.Fprintln(os.Stderr, os.Args[1], err)
	os.Exit(1)
}

func listener() (net.Listener, error) {
	f := os.NewFile(3, "listener")
	defer f.Close()
	return net.FileListener(f)
}

func runSpawner(c config) error {
	if !c.Single {
		if err := launch.Confine(); err != nil {
			return err
		}
	}
	l, err := listener()
	if err != nil {
		return err
	}
	v, err := ticket.LoadVerifier(c.Keys)
	if err != nil {
		return err
	}
	accounts := spawner.Separate(spawner.Policy{})
	var network *os.File
	if c.Single {
		if accounts, err = spawner.Single("/tmp", "/bin/bash"); err != nil {
			return err
		}
	} else {
		network = os.NewFile(4, "network")
	}
	limits := spawner.NoLimits("the test wants none")
	if c.Limits != "" {
		if limits, err = spawner.FindLimits(c.Limits); err != nil {
			return err
		}
	}
	s, err := spawner.New(spawner.Config{
		Node: c.Node, Verifier: v, Accounts: accounts, Limits: limits, RunDir: c.RunDir, StateDir: c.StateDir,
		ProjectRoot: c.ProjectRoot, Self: c.Self, AppsDir: c.AppsDir, SkeletonDir: c.Skeleton, Peer: c.Peer, Group: c.Group, Network: network,
		Default: spawner.Want{Memory: c.Memory}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return s.Serve(l)
}

func runCompute(c config) error {
	l, err := listener()
	if err != nil {
		return err
	}
	v, err := ticket.LoadVerifier(c.Keys)
	if err != nil {
		return err
	}
	id, err := remote.LoadIdentity(c.Identity)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	n, err := compute.New(compute.Config{
		Node: c.Node, Verifier: v, RunDir: c.RunDir, StateDir: c.StateDir,
		Spawner: c.Socket, Log: log,
	})
	if err != nil {
		return err
	}
	return remote.Server(id, remote.NodeHandler(n, n, log), log, "server", "gateway").ServeTLS(l, "", "")
}
