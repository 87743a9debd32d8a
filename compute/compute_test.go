package compute

import (
	"strings"
	"testing"
)

// C-20: a run directory that would make paths too long is refused at the start.
func TestPathLength(t *testing.T) {
	long := "/" + strings.Repeat("x", 90)
	_, err := New(Config{Node: "n", RunDir: long, StateDir: t.TempDir(), Spawner: "/s"})
	if err == nil {
		t.Error("a run directory that is too long is taken")
	}
}
