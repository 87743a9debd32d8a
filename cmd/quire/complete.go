package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a completion script made from the commands themselves.
func (c completionCmd) Run(app *kong.Application) error {
	var top []string
	words := map[string][]string{}
	var add func(n *kong.Node, path []string)
	add = func(n *kong.Node, path []string) {
		for _, child := range n.Children {
			if child.Hidden {
				continue
			}
			here := append(append([]string(nil), path...), child.Name)
			words[strings.Join(path, " ")] = append(words[strings.Join(path, " ")], child.Name)
			for _, f := range child.Flags {
				words[strings.Join(here, " ")] = append(words[strings.Join(here, " ")], "--"+f.Name)
			}
			add(child, here)
		}
	}
	add(app.Node, nil)
	top = words[""]
	switch c.Shell {
	case "fish":
		fmt.Printf("complete -c quire -f -n __fish_use_subcommand -a %q\n", strings.Join(top, " "))
		for _, t := range top {
			fmt.Printf("complete -c quire -f -n '__fish_seen_subcommand_from %s' -a %q\n", t, strings.Join(words[t], " "))
		}
	default:
		if c.Shell == "zsh" {
			fmt.Println("autoload -U +X bashcompinit && bashcompinit")
		}
		fmt.Println("_quire() {\n  local line=\"${COMP_WORDS[*]:1:COMP_CWORD-1}\" words\n  case \"$line\" in")
		for _, path := range slices.Sorted(maps.Keys(words)) {
			w := words[path]
			fmt.Printf("    %q) words=%q ;;\n", path, strings.Join(w, " "))
		}
		fmt.Println("    *) return ;;\n  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\ncomplete -F _quire quire")
	}
	return nil
}
