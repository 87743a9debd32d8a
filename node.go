package quire

import (
	"fmt"
	"strings"
	"time"
)

// A Node is the record of a compute resource. A Machine is the live thing.
type Node struct {
	ID         NodeID       `json:"id"`
	DataCenter DataCenterID `json:"data_center"`
	Name       string       `json:"name"`
	Address    string       `json:"address"` // host:port as its gateway dials it
	Summary    string       `json:"summary,omitempty"`
	Drained    bool         `json:"drained"`        // nothing new starts here
	Note       string       `json:"note,omitempty"` // what an administrator says about it to everybody
	Peer       Peer         `json:"peer"`
	Up         bool         `json:"up"`
	Reason     string       `json:"reason,omitempty"`
	Health     NodeHealth   `json:"health"`
}

// NodeHealth is what a node says of itself.
type NodeHealth struct {
	Version     string    `json:"version"`
	Time        time.Time `json:"time"` // for clock skew
	BootID      string    `json:"boot_id"`
	MemoryFree  int64     `json:"memory_free"` // bytes
	MemoryTotal int64     `json:"memory_total"`
	DiskFree    int64     `json:"disk_free"` // bytes, of the project root
	DiskTotal   int64     `json:"disk_total"`
	Storage     Storage   `json:"storage"`
	Load        float64   `json:"load"` // one minute
	CPUs        int       `json:"cpus"`
	Accounts    string    `json:"accounts"` // "separate" or "single"
	Limits      string    `json:"limits"`   // which cgroup layout holds sessions, or why none
	Sessions    int       `json:"sessions"`
	Apps        []App     `json:"apps"`             // enabled descriptors found on the node
	Others      []App     `json:"others,omitempty"` // enabled, for projects whose own environment has what they need (NodeReport.Own)
	Messages    []string  `json:"messages"`         // what is wrong, in words
}

// Storage is what a node's project root lies on, as its spawner finds it.
type Storage struct {
	// ID lies on the storage itself: two nodes that show the same one share it.
	// A project may be on several nodes only where they do.
	ID        StorageID `json:"id,omitempty"`
	Root      string    `json:"root"`
	Type      string    `json:"type,omitempty"`    // "ext4", "nfs4"
	Options   []string  `json:"options,omitempty"` // of the mount: those that matter here
	Free      int64     `json:"free"`              // bytes
	Total     int64     `json:"total"`
	FilesFree int64     `json:"files_free"` // inodes; 0 of 0 where the file system does not count them
	Files     int64     `json:"files"`
	Fit       bool      `json:"fit"`               // modes, owners and access lists were tried there and work
	Problem   string    `json:"problem,omitempty"` // why no project starts here, and what to mount how
	Warnings  []string  `json:"warnings,omitempty"`
}

// String says it in words, without what is wrong: that is in sentences already.
func (s Storage) String() string {
	kind := s.Type
	if kind == "" {
		kind = "unknown"
	}
	text := s.Root + ": " + kind
	if len(s.Options) > 0 {
		text += " (" + strings.Join(s.Options, ", ") + ")"
	}
	if s.Files > 0 {
		text += fmt.Sprintf(", room for %d more files", s.FilesFree)
	}
	if s.Fit {
		return text + ". Owners and access lists work."
	}
	return text + ". No project can start on it."
}
