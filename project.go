package quire

import "time"

// ProjectState says what a project is doing. Running means prepared and open;
// it does not say that anybody runs something in it.
type ProjectState string

const (
	ProjectStopped  ProjectState = "stopped"
	ProjectStarting ProjectState = "starting"
	ProjectRunning  ProjectState = "running"
	ProjectStopping ProjectState = "stopping"
	ProjectMoving   ProjectState = "moving" // to another node
	ProjectFailed   ProjectState = "failed"
	ProjectDeleted  ProjectState = "deleted" // aside on disk, restorable until purged
)

// A Project is a directory, a team and an environment on a node.
type Project struct {
	ID          ProjectID    `json:"id"`
	Owner       UserID       `json:"owner"`
	OwnerName   string       `json:"owner_name"`
	Name        string       `json:"name"`
	Summary     string       `json:"summary"`
	Description string       `json:"description,omitempty"` // Markdown
	Public      bool         `json:"public"`
	DataCenter  DataCenterID `json:"data_center"`
	Node        NodeID       `json:"node"`
	Dir         string       `json:"dir"`              // absolute, fixed at creation, never recomputed
	Source      string       `json:"source,omitempty"` // git URL it was made from
	State       ProjectState `json:"state"`
	Reason      string       `json:"reason,omitempty"` // a sentence, when failed or stopped by a rule
	Stars       int          `json:"stars"`
	Starred     bool         `json:"starred"`        // by the asker
	Role        Role         `json:"role,omitempty"` // of the asker
	Created     time.Time    `json:"created"`
	Changed     time.Time    `json:"changed"`
	Deleted     *time.Time   `json:"deleted,omitempty"`
}

// Path is the project's address below the portal: /OWNER/PROJECT.
func (p Project) Path() string { return "/" + p.OwnerName + "/" + p.Name }

// WorkState is the state of a multi-step work or of one of its steps.
type WorkState string

const (
	WorkWaiting WorkState = "waiting"
	WorkRunning WorkState = "running"
	WorkDone    WorkState = "done"
	WorkFailed  WorkState = "failed"
)

// A Work is a row of named steps, each with a check ("is it so already?") and
// an act, so that it resumes after a kill at any point.
type Work struct {
	ID      WorkID     `json:"id"`
	Kind    string     `json:"kind"` // start, stop, delete, restore, purge, take-over, move
	Project ProjectID  `json:"project"`
	By      string     `json:"by"`
	Author  uint32     `json:"author,omitempty"` // of a take-over: whose files
	Move    *Move      `json:"move,omitempty"`   // of a move: from where to where
	State   WorkState  `json:"state"`
	Error   string     `json:"error,omitempty"`
	Log     string     `json:"log,omitempty"` // last lines of what failed
	Steps   []Step     `json:"steps"`
	Created time.Time  `json:"created"`
	Ended   *time.Time `json:"ended,omitempty"`
}

// A Step of a work: directory, skeleton, environment, permissions, app …
type Step struct {
	Name    string     `json:"name"`
	State   WorkState  `json:"state"`
	Note    string     `json:"note,omitempty"` // "already there", "cloned 12 files"
	Started *time.Time `json:"started,omitempty"`
	Ended   *time.Time `json:"ended,omitempty"`
}

// Seconds is how long the step has taken, up to now if it is not over.
func (s Step) Seconds(now time.Time) float64 {
	switch {
	case s.Started == nil:
		return 0
	case s.Ended == nil:
		return now.Sub(*s.Started).Seconds()
	}
	return s.Ended.Sub(*s.Started).Seconds()
}
