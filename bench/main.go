// Bench measures Quire against its peers, both in the same run on the same
// machine, and prints one JSON line per figure. Single numbers of a shared
// machine mean little; ratios of medians of alternating rounds mean more.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// A figure is one result. Ratio is Value over Baseline where there is one.
type figure struct {
	Figure   string  `json:"figure"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	Baseline float64 `json:"baseline,omitempty"`
	Ratio    float64 `json:"ratio,omitempty"`
}

func report(name string, value float64, unit string, baseline float64) {
	f := figure{Figure: name, Value: round(value), Unit: unit, Baseline: round(baseline)}
	if baseline != 0 {
		f.Ratio = round(value / baseline)
	}
	json.NewEncoder(os.Stdout).Encode(f)
}

func round(f float64) float64 {
	var out float64
	fmt.Sscanf(fmt.Sprintf("%.4g", f), "%g", &out)
	return out
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s) == 0 {
		return 0
	}
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}

// note tells the person at the terminal what goes on; figures go to stdout.
func note(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// The parts that must be processes of their own are this program again.
	parts := map[string]func(context.Context, []string) error{"serve-backend": serveBackend, "serve-gateway": serveGateway, "serve-nodes": serveNodes, "serve-door": serveDoor}
	benches := []struct {
		name string
		do   func(context.Context) error
	}{{"gateway", benchGateway}, {"execute", benchExecute}, {"start", benchStart}, {"acl", benchACL}, {"files", benchFiles}, {"scale", benchScale}, {"idle", benchIdle}, {"lab", benchLab}}
	if len(args) > 0 {
		if part, ok := parts[args[0]]; ok {
			return exit(part(ctx, args[1:]))
		}
	}
	found := false
	for _, b := range benches {
		if len(args) == 0 || slices.Contains(args, b.name) {
			found = true
			if err := b.do(ctx); err != nil {
				return exit(fmt.Errorf("%s: %w", b.name, err))
			}
		}
	}
	if !found {
		return exit(fmt.Errorf("there is no benchmark %q; there are gateway, execute, start, acl, files, scale, idle and lab", args[0]))
	}
	return 0
}

func exit(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}
