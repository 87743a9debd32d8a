// Quire is one binary with four roles: quire up runs them all on one machine.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/alecthomas/kong"

	"quire"
	"quire/apps/keep"
	"quire/apps/kernel"
	"quire/apps/lab"
	"quire/apps/terminal"
	"quire/apps/viewer"
	"quire/apps/workbench"
	"quire/compute/environment"
	"quire/spawner"
	"quire/spawner/launch"
)

// version is stamped by the build.
var version = "dev"

// protocol is stamped by tests that stand for another release; 0 is ours.
var protocol = "0"

type cli struct {
	Up           upCmd               `cmd:"" help:"Run everything on this machine: server, gateway, compute and spawner."`
	Stop         stopCmd             `cmd:"" help:"Stop what 'quire up' runs, or one role. Sessions go on unless --sessions is given."`
	Start        startCmd            `cmd:"" help:"Start a role that was stopped."`
	Restart      restartCmd          `cmd:"" help:"Restart a role. Sessions go on."`
	Status       statusCmd           `cmd:"" help:"Show every process of this machine: state, since when, restarts, last error."`
	Admin        adminCmd            `cmd:"" help:"Set-up links and accounts, on the server's machine."`
	Config       configCmd           `cmd:"" help:"Print the settings in force and where they come from, or check a file."`
	Database     databaseCmd         `cmd:"" help:"Move the database."`
	Doctor       doctorCmd           `cmd:"" help:"Look for what is wrong and change nothing."`
	StartProject startProjectCmd     `cmd:"" help:"Prepare and open a project, as its page does."`
	Server       serverCmd           `cmd:"" help:"Change the portal's address."`
	Gateway      gatewayCmd          `cmd:"" help:"Join an installation as the gateway of a new data center."`
	Compute      computeCmd          `cmd:"" help:"Join a data center as a compute node."`
	Worker       roleCmd             `cmd:"" help:"Run the worker role (started by 'quire up')." hidden:""`
	Spawner      roleCmd             `cmd:"" help:"Run the spawner role (started by 'quire up')." hidden:""`
	WkGateway    gatewayConfigureCmd `cmd:"" name:"wk-gateway-configure" help:"Join as a gateway, the way it was done in AEN."`
	WkServer     serverAdminCmd      `cmd:"" name:"wk-server-admin" help:"AEN's commands for the server."`
	Notebook     notebookCmd         `cmd:"" help:"Run a notebook without a browser."`
	Assets       assetsCmd           `cmd:"" help:"Write the files that a proxy in front can serve itself."`
	Completion   completionCmd       `cmd:"" help:"Print shell completion for bash, zsh or fish."`
	Version      versionCmd          `cmd:"" help:"Print the version."`
	Help         helpCmd             `cmd:"" help:"Show this help, or that of a command."`
}

func main() {
	args := os.Args[1:]
	if name := filepath.Base(os.Args[0]); slices.Contains(oldNames[:], name) {
		args = append([]string{name}, args...)
	}
	os.Exit(run(args))
}

func run(args []string) int {
	// What sessions run is chosen before anything else is set up: it starts
	// once for every click.
	if len(args) > 0 {
		switch args[0] {
		case "shim":
			return launch.Shim()
		case "keep":
			return keep.Main(args[1:])
		case "helper":
			return environment.Main(args[1:])
		case "pack":
			return spawner.PackMain(args[1:])
		case "terminal":
			return terminal.Main(args[1:])
		case "workbench":
			return workbench.Main(args[1:])
		case "kernels":
			return kernel.Main(args[1:])
		case "lab":
			return lab.Main(args[1:])
		case "viewer":
			return viewer.Main(args[1:])
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var c cli
	parser, err := kong.New(&c, kong.Name("quire"), kong.UsageOnError(),
		kong.Description("Projects, teams and notebooks on your own Linux machines."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.BindTo(ctx, (*context.Context)(nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "quire:", err)
		return 2
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	k, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "quire: %v\nTry \"quire help\".\n", err)
		return 2
	}
	if err := k.Run(parser.Model); err != nil {
		fmt.Fprintln(os.Stderr, "quire:", sentence(err))
		return 1
	}
	return 0
}

// sentence is what a person at a shell reads: ours as a sentence, with the cause
// behind it, since whoever types the command may know everything.
func sentence(err error) string {
	e, ok := err.(*quire.Error)
	if !ok {
		return err.Error()
	}
	if e.Err != nil {
		return e.Message + " (" + e.Err.Error() + ")"
	}
	return e.Message
}

type versionCmd struct{}

func (versionCmd) Run() error {
	fmt.Println("quire", version)
	return nil
}

type helpCmd struct {
	Command []string `arg:"" optional:"" help:"The command to explain."`
}

func (h helpCmd) Run() error {
	run(append(h.Command, "--help"))
	return nil
}
