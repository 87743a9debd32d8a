package main

import (
	"context"
	"os"
	"time"

	"quire/apps/lab"
)

type notebookCmd struct {
	Run notebookRunCmd `cmd:"" help:"Run all cells in order and write what they say into the notebook, cell by cell."`
}

type notebookRunCmd struct {
	Path     string        `arg:"" help:"The notebook."`
	Kernel   string        `help:"Another kernel than the notebook names."`
	Limit    time.Duration `help:"Interrupt a cell that runs longer, like 10m."`
	Continue bool          `help:"Go on after a cell that failed."`
}

func (c notebookRunCmd) Run(ctx context.Context) error {
	return lab.Run{Path: c.Path, Kernel: c.Kernel, Limit: c.Limit, On: c.Continue, Out: os.Stdout}.Do(ctx)
}
