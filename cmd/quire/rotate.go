package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"quire"
	"quire/control"
)

type rotateCmd struct {
	Config string `short:"c" placeholder:"FILE" help:"Configuration file."`
	rotateIn
}

type rotateIn struct {
	Status bool `help:"Begin nothing, say how far it is."`
	Finish bool `help:"Drop the old authority now, if every machine has a certificate of the new one."`
	Force  bool `help:"With --finish: also if some do not. They have to join again."`
}

// Run begins a change, or tells how far it is.
func (r rotateCmd) Run(ctx context.Context) error {
	if r.Force && !r.Finish || r.Status && r.Finish {
		return errors.New("--force goes with --finish, and --status goes alone")
	}
	_, admin, err := adminOf(r.Config)
	if err != nil {
		return err
	}
	var s control.RotationState
	if err := admin.call(ctx, "POST", "/rotation", r.rotateIn, &s); err != nil {
		return err
	}
	switch {
	case r.Finish && len(s.Left) > 0:
		fmt.Printf("The old authority counts no more. These have to join again: %s.\n", strings.Join(s.Left, ", "))
	case r.Finish:
		fmt.Println("The old authority counts no more.")
	case !s.Running:
		fmt.Println("No change of the authority is under way.")
	default:
		fmt.Printf("Two authorities count since %s. %d of %d machines have a certificate of the new one.\n", s.Begun.Local().Format("2 January 15:04"), len(s.Done), len(s.Done)+len(s.Left))
		if len(s.Away) > 0 {
			fmt.Printf("Away, and carried along when they come back: %s.\n", strings.Join(s.Away, ", "))
		}
		fmt.Println("When all have one, the old authority is dropped by itself.")
	}
	return nil
}

// rotate is the server's side.
func rotate(ctx context.Context, ctl *control.Control, by quire.Actor, in rotateIn) (any, error) {
	switch {
	case in.Finish:
		return ctl.Rotation.Finish(ctx, by, in.Force)
	case !in.Status:
		if err := ctl.Rotation.Begin(ctx, by); err != nil {
			return nil, err
		}
	}
	return ctl.Rotation.State(ctx, by)
}
