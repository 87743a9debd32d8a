package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// A roleState is one process of this machine, as the supervisor sees it.
type roleState struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // "running", "stopped" or "waiting" to be started again
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"` // of the state
	Restarts int       `json:"restarts"`
	Last     string    `json:"last,omitempty"` // why it ended last
	Log      string    `json:"log"`
}

// report lists the processes, the supervisor first.
func (s *supervisor) report(w http.ResponseWriter, _ *http.Request) {
	list := []roleState{{Name: "up", State: "running", PID: os.Getpid(), Since: s.began}}
	for _, r := range s.roles {
		r.mu.Lock()
		st := roleState{Name: r.name, State: "waiting", Since: r.since, Restarts: r.restarts, Last: r.last, Log: s.logFile(r)}
		switch {
		case r.cmd != nil:
			st.State, st.PID = "running", r.cmd.Process.Pid
		case r.stopped:
			st.State = "stopped"
		}
		r.mu.Unlock()
		list = append(list, st)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(list)
}

// command starts, stops or restarts one process and answers when that is done.
func (s *supervisor) command(w http.ResponseWriter, r *http.Request) {
	for _, role := range s.roles {
		if role.name != r.PathValue("role") {
			continue
		}
		if r.PathValue("do") != "stop" {
			if err := s.reload(); err != nil {
				http.Error(w, "nothing was done, because of the configuration: "+err.Error(), http.StatusConflict)
				return
			}
		}
		if err := role.do(r.Context(), r.PathValue("do")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
		return
	}
	http.Error(w, "there is no such role on this machine", http.StatusNotFound)
}

// do waits until the process is as it should be. What runs is asked to end, and
// ended for good if it does not within ten seconds.
func (r *role) do(ctx context.Context, what string) error {
	r.mu.Lock()
	old := r.cmd
	r.stopped = what == "stop"
	r.mu.Unlock()
	if old != nil && what != "start" {
		old.Process.Signal(syscall.SIGTERM)
	}
	r.stir()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for kill := time.Now().Add(10 * time.Second); ; {
		r.mu.Lock()
		now := r.cmd
		r.mu.Unlock()
		if what == "stop" && now == nil || what != "stop" && now != nil && (now != old || what == "start") {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			if old != nil && now == old && time.Now().After(kill) {
				old.Process.Kill()
			}
		}
	}
}

func (r *role) stir() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

type statusCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
	JSON   bool   `help:"Print JSON."`
}

// Run prints what runs here. It ends with an error when something does not.
func (s statusCmd) Run(ctx context.Context) error {
	up, err := supervisorOf(s.Config)
	if err != nil {
		return err
	}
	var list []roleState
	if err := up.call(ctx, "GET", "/roles", nil, &list); err != nil {
		return err
	}
	if s.JSON {
		return json.NewEncoder(os.Stdout).Encode(list)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROCESS\tSTATE\tPID\tFOR\tRESTARTS\tLAST END")
	bad := 0
	for _, r := range list {
		pid := "-"
		if r.PID != 0 {
			pid = fmt.Sprint(r.PID)
		}
		if r.State != "running" {
			bad++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", r.Name, r.State, pid, time.Since(r.Since).Round(time.Second), r.Restarts, firstOf(r.Last, "-"))
	}
	w.Flush()
	if bad > 0 {
		return fmt.Errorf("%d of %d processes do not run", bad, len(list))
	}
	return nil
}

func supervisorOf(config string) (*adminClient, error) {
	c, err := loadConfig(config, os.Geteuid() == 0)
	return &adminClient{socket: filepath.Join(c.Dirs.Run, "up.sock")}, err
}

// oneRole is a command for one process.
type oneRole struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
	Role   string `arg:"" help:"server, worker, gateway, compute or spawner."`
}

func (o oneRole) tell(ctx context.Context, do, done string) error {
	up, err := supervisorOf(o.Config)
	if err != nil {
		return err
	}
	if strings.ContainsAny(o.Role, "/?#") {
		return errors.New("there is no such role")
	}
	if err := up.call(ctx, "POST", "/roles/"+o.Role+"/"+do, nil, nil); err != nil {
		return err
	}
	fmt.Printf("The %s %s.\n", o.Role, done)
	return nil
}

type startCmd struct{ oneRole }

func (s startCmd) Run(ctx context.Context) error { return s.tell(ctx, "start", "runs") }

type restartCmd struct{ oneRole }

func (s restartCmd) Run(ctx context.Context) error { return s.tell(ctx, "restart", "was restarted") }
