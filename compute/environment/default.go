package environment

import (
	"context"
	_ "embed" // for the kernel's start
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"quire"
)

// Default is the environment every project starts with, below its directory.
const Default = "envs/default"

// kernelSpec is written last: an environment that has it is complete.
const (
	kernelDir  = Default + "/share/jupyter/kernels/python3"
	kernelSpec = kernelDir + "/kernel.json"
)

// kernel starts ipykernel without the TCP port it would open.
//
//go:embed kernel.py
var kernel []byte

// makeDefault makes envs/default: a virtual environment over the site's root
// environment, or over the system's Python, that sees their packages. pip is a
// script for the pip that is there already; bringing a copy of its own takes
// seconds that people would wait for.
func makeDefault(ctx context.Context, o options) (Result, error) {
	root, err := os.OpenRoot(o.dir)
	if err != nil {
		return Result{}, quire.Failed("The project's directory cannot be opened: "+words(err)+".", err)
	}
	defer root.Close()
	if info, err := root.Stat(kernelSpec); err == nil && info.Mode().IsRegular() {
		return Result{Already: true, Note: "already there"}, nil
	}
	python := o.python
	if o.root != "" {
		python = filepath.Join(o.root, "bin/python")
	}
	prefix := filepath.Join(o.dir, Default)
	log := &tail{limit: logTail}
	c := exec.CommandContext(ctx, python, "-I", "-m", "venv", "--without-pip", "--system-site-packages", "--prompt", "default", prefix)
	c.Dir, c.Stdout, c.Stderr = "/", log, log
	if err := c.Run(); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return Result{}, quire.Failed("The environment could not be made: there is no Python at "+python+" on this node.", err)
		}
		return Result{Log: log.b.String()}, quire.Failed("The environment could not be made: "+lastLine(log.b.String(), err)+".", err)
	}
	if err := furnish(root, prefix); err != nil {
		return Result{}, quire.Failed("The environment could not be finished: "+words(err)+".", err)
	}
	over := "the system's Python"
	if o.root != "" {
		over = o.root
	}
	return Result{Note: Default + " over " + over}, nil
}

// furnish adds pip and, last, the kernel.
func furnish(root *os.Root, prefix string) error {
	pip := fmt.Sprintf("#!%s/bin/python3\nimport runpy\nrunpy.run_module(\"pip\", run_name=\"__main__\", alter_sys=True)\n", prefix)
	for _, name := range []string{"pip", "pip3"} {
		if err := write(root, Default+"/bin/"+name, []byte(pip), 0o770); err != nil {
			return err
		}
	}
	spec := map[string]any{
		"argv":         []string{filepath.Join(prefix, "bin/python"), "{resource_dir}/launch.py", "-f", "{connection_file}"},
		"display_name": "Python [default]",
		"language":     "python",
		// The debugger would listen on TCP, for everybody on the node to connect to.
		"metadata": map[string]any{"debugger": false},
	}
	b, err := json.MarshalIndent(spec, "", " ")
	if err != nil {
		return err
	}
	if err := root.MkdirAll(kernelDir, 0o770); err != nil {
		return err
	}
	if err := write(root, kernelDir+"/launch.py", kernel, 0o660); err != nil {
		return err
	}
	return write(root, kernelSpec, append(b, '\n'), 0o660)
}

// write puts a file in place as a whole, unless there is one.
func write(root *os.Root, name string, b []byte, mode fs.FileMode) error {
	if _, err := root.Lstat(name); err == nil {
		return nil
	}
	part := name + ".part"
	_ = root.Remove(part)
	f, err := root.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return root.Rename(part, name)
}
