package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// metafile is what we read of the bundler's report.
type metafile struct {
	Outputs map[string]struct {
		EntryPoint string
		CSSBundle  string
		Inputs     map[string]struct{ BytesInOutput int }
	}
}

// fill writes the entries of the manifest: the name a page asks for and the
// file that has it. A file that is loaded later is an entry to the bundler but
// not to a page.
func (m metafile) fill(manifest map[string]string, entries []api.EntryPoint) error {
	ours := map[string]bool{}
	for _, e := range entries {
		ours[path.Clean(e.InputPath)] = true
	}
	add := func(entry, output string) error {
		name := path.Base(path.Dir(entry)) + path.Ext(output)
		file := path.Base(output)
		if old, ok := manifest[name]; ok && old != file {
			return fmt.Errorf("%s: import the style sheet from index.ts or have an index.css, not both", name)
		}
		manifest[name] = file
		return nil
	}
	for output, o := range m.Outputs {
		if !ours[o.EntryPoint] {
			continue
		}
		if err := add(o.EntryPoint, output); err != nil {
			return err
		}
		if o.CSSBundle != "" {
			if err := add(o.EntryPoint, o.CSSBundle); err != nil {
				return err
			}
		}
	}
	return nil
}

// notices lists the packages of which at least one byte is in a bundle, with
// their licenses.
func (b *builder) notices(m metafile) (string, error) {
	dirs := map[string]bool{}
	for _, o := range m.Outputs {
		for input, i := range o.Inputs {
			if dir := packageDir(input); dir != "" && i.BytesInOutput > 0 {
				dirs[dir] = true
			}
		}
	}
	sorted := make([]string, 0, len(dirs))
	for dir := range dirs {
		sorted = append(sorted, dir)
	}
	sort.Strings(sorted)
	var text strings.Builder
	text.WriteString("Quire's pages contain code of these packages.\n")
	for _, dir := range sorted {
		notice, err := b.notice(dir)
		if err != nil {
			return "", err
		}
		text.WriteString("\n" + strings.Repeat("-", 78) + "\n" + notice)
	}
	return text.String(), nil
}

// packageDir is the directory of the package an input belongs to, "" for ours.
func packageDir(input string) string {
	if _, after, ok := strings.Cut(input, ":"); ok {
		input = after
	}
	const modules = "node_modules/"
	i := strings.LastIndex(input, modules)
	if i < 0 {
		return ""
	}
	parts := strings.Split(input[i+len(modules):], "/")
	n := 1
	if strings.HasPrefix(parts[0], "@") {
		n = 2
	}
	return input[:i] + modules + strings.Join(parts[:min(n, len(parts))], "/")
}

// A license is what a package says of its own.
type license struct{ Name, Version, License, Text string }

func (b *builder) notice(dir string) (string, error) {
	l, err := readLicense(b.path(dir))
	if err != nil {
		return "", err
	}
	return l.notice(), nil
}

func (l license) notice() string {
	if l.Text == "" {
		return fmt.Sprintf("%s %s (%s; the package has no license file)\n", l.Name, l.Version, l.License)
	}
	return fmt.Sprintf("%s %s (%s)\n\n%s\n", l.Name, l.Version, l.License, l.Text)
}

// readLicense reads what a package's directory has. One that names no license
// and has no text of one is nobody's to pass on.
func readLicense(dir string) (l license, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil {
		return l, err
	}
	var about struct {
		Name, Version string
		License       any
		Licenses      []struct{ Type string }
	}
	if err := json.Unmarshal(raw, &about); err != nil {
		return l, fmt.Errorf("%s/package.json: %w", dir, err)
	}
	l.Name, l.Version = about.Name, about.Version
	l.License, _ = about.License.(string)
	if old, ok := about.License.(map[string]any); ok { // how it was written once
		l.License, _ = old["type"].(string)
	}
	if l.License == "" && len(about.Licenses) == 1 {
		l.License = about.Licenses[0].Type
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return l, err
	}
	for _, d := range found {
		if name := strings.ToUpper(d.Name()); d.Type().IsRegular() && (strings.HasPrefix(name, "LICENSE") || strings.HasPrefix(name, "LICENCE") || strings.HasPrefix(name, "COPYING")) {
			text, err := os.ReadFile(filepath.Join(dir, d.Name()))
			if err != nil {
				return l, err
			}
			l.Text = strings.TrimSpace(string(text))
			return l, nil
		}
	}
	if l.License == "" {
		return l, fmt.Errorf("%s names no license and has no license file; it must not be bundled", l.Name)
	}
	return l, nil
}
