// Command build makes the quire binary: it installs the browser libraries named
// in package-lock.json, bundles web/ui into web/dist and JupyterLab with
// apps/lab/ui into apps/lab/dist, and compiles the program.
// Each step is skipped when nothing it reads has changed.
//
// Every directory web/ui/NAME with an index.ts or an index.css is one bundle.
// Files in web/ui/static are published as they are, under a hashed name. An SVG
// of lucide-static becomes a data URL inside CSS and its own text inside
// TypeScript, because an icon is smaller than the request that would fetch it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "build:", err)
		}
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	output := flags.String("o", "bin/quire", "where the binary goes, below the repository")
	bundles := flags.Bool("bundles", false, "stop after the bundles, compile nothing")
	noLab := flags.Bool("without-lab", false, "leave out JupyterLab's part in the browser; its app says so then")
	extension := flags.Bool("extension", false, "also build ipywidgets' part in JupyterLab into bin/labextensions, which the tests load")
	if err := flags.Parse(args); err != nil {
		return err
	}
	root, err := findRoot()
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(root, "bin"))
	if err != nil {
		return err
	}
	defer unlock()

	b := &builder{root: root, state: filepath.Join(root, "bin", ".built"), output: *output, out: out}
	steps := []step{
		{"browser libraries", b.packages},
		{"bundles", b.bundles},
	}
	if *extension { // first: it needs more of the packages
		steps = append(steps, step{"an extension", b.labExtension})
	}
	if !*noLab {
		steps = append(steps, step{"JupyterLab", b.lab})
	}
	if !*bundles {
		steps = append(steps, step{"binary", b.binary})
	}
	return perform(steps, out)
}

// A step returns a few words on what it did; they are printed with its time.
type step struct {
	name string
	do   func() (string, error)
}

func perform(steps []step, out io.Writer) error {
	begin := time.Now()
	for _, s := range steps {
		start := time.Now()
		did, err := s.do()
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintf(out, "%-18s %6.2f s  %s\n", s.name, time.Since(start).Seconds(), did)
	}
	fmt.Fprintf(out, "%-18s %6.2f s\n", "together", time.Since(begin).Seconds())
	return nil
}

type builder struct {
	root   string
	state  string // directory of the stamps
	output string
	out    io.Writer
}

// say tells what takes long before it does.
func (b *builder) say(text string) { fmt.Fprintf(b.out, "    %s\n", text) }

func (b *builder) path(parts ...string) string {
	return filepath.Join(append([]string{b.root}, parts...)...)
}

func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("run this inside a clone of the repository (no go.mod found above the current directory)")
		}
		dir = filepath.Dir(dir)
	}
}

// lock lets one build at a time work in a clone. The second one waits and then
// finds its work done.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}
