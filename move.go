package quire

// A project moves by a row of orders. On the node where it is: put aside, where
// only root gets (OrderAside), look at what there is (OrderSurvey), send it
// (OrderSend). On the other one: take it in, where only root gets (OrderReceive),
// look whether it is the same (OrderSurvey), put it in place (OrderPlace). Until
// then OrderBack and OrderUnstage undo everything.

// MoveArgs of these orders.
type MoveArgs struct {
	// TeamArgs: of OrderAside whose processes end (Expel); of OrderPlace the team.
	TeamArgs
	// Aside, of OrderTrash: what lies aside is put away, as its project lives on
	// elsewhere; of OrderPurge: that is deleted.
	Aside bool `json:"aside,omitempty"`
	// Staged, of OrderSurvey: look at what was received, not at what lies aside.
	Staged bool `json:"staged,omitempty"`
	// Sum, of OrderSurvey: read every file. Without it, only Owners, Named and
	// Groups of the order's answer are looked for, and People need not be known.
	Sum bool `json:"sum,omitempty"`
	// People may own files, Named may stand in access lists besides; accounts have
	// the same number on all nodes. Groups are known by name.
	People []Person `json:"people,omitempty"`
	Named  []Person `json:"named,omitempty"`
	Groups []string `json:"groups,omitempty"`
	// What OrderReceive takes at most.
	Files int64 `json:"files,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
}

// A Survey is what lies in a project's directory.
type Survey struct {
	Files  int64  `json:"files"` // all but directories
	Dirs   int64  `json:"dirs"`
	Bytes  int64  `json:"bytes"`            // that files hold
	Room   int64  `json:"room"`             // bytes that they take on the disk
	Digest []byte `json:"digest,omitempty"` // of names, kinds, owners, modes, lists, times and contents
	// Owners are whose files there are, each with an example; Named who stands in
	// access lists; Groups are of files and lists, where they have a name.
	Owners map[uint32]string `json:"owners,omitempty"`
	Named  []uint32          `json:"named,omitempty"`
	Groups []string          `json:"groups,omitempty"`
	Left   []Finding         `json:"left,omitempty"` // what cannot come along
}

// What a move leaves out, in the words of a Finding.
const (
	LeftSpecial = "are pipes, sockets or devices"
	LeftMounts  = "are other file systems, mounted here"
	LeftSetID   = "ran with the rights of their owner or group (setuid, setgid) and are copied without that"
	LeftEntries = "had entries for accounts or groups that are unknown and are copied without them"
)

// A Move is what a work of that kind is about.
type Move struct {
	From       NodeID       `json:"from"`
	To         NodeID       `json:"to"`
	DataCenter DataCenterID `json:"data_center"` // of To
	ToName     string       `json:"to_name"`
	Start      bool         `json:"start,omitempty"`  // it ran, and is started again
	Shared     bool         `json:"shared,omitempty"` // both nodes have the same storage: nothing is copied
	Empty      bool         `json:"empty,omitempty"`  // it was never started: there is nothing to copy
	Switched   bool         `json:"switched,omitempty"`
	Survey     *Survey      `json:"survey,omitempty"` // of what is copied
	People     []Person     `json:"people,omitempty"`
	Named      []Person     `json:"named,omitempty"`
	Done       int64        `json:"done,omitempty"` // bytes that went over
}
