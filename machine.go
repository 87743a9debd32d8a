package quire

import (
	"context"
	"io"
	"time"
)

// An OrderType names one thing a node may be told to do.
type OrderType byte

const (
	OrderDirectory   OrderType = 1  // make /projects/OWNER and /projects/OWNER/PROJECT (root)
	OrderSkeleton    OrderType = 2  // copy the site's skeleton into the project (as the user)
	OrderClone       OrderType = 3  // git clone into the project (as the user); Args CloneArgs
	OrderEnvironment OrderType = 4  // make envs/default (as the user)
	OrderPermissions OrderType = 5  // the project's top directory: mode and ACL (root); Args TeamArgs
	OrderStart       OrderType = 6  // start a session; Args StartArgs
	OrderStop        OrderType = 7  // stop a session; Args StopArgs
	OrderTrash       OrderType = 8  // rename the project aside, inside its root-owned parent (root)
	OrderRestore     OrderType = 9  // rename it back (root)
	OrderPurge       OrderType = 10 // delete what was renamed aside
	OrderAccount     OrderType = 11 // make or find the person's Linux account (root); Args AccountArgs
	OrderRepair      OrderType = 12 // access lists below the project (as each file's owner); Args RepairArgs
	OrderTakeOver    OrderType = 13 // copy an author's files and put the copies in place (as the user); Args TakeOverArgs
	OrderWhy         OrderType = 14 // why somebody cannot use a file (as the user); Args WhyArgs

	// Of a move; Args MoveArgs.
	OrderAside   OrderType = 15 // put the project's directory where only root gets (root)
	OrderBack    OrderType = 16 // and back (root)
	OrderSurvey  OrderType = 17 // look at what lies there (as nobody, who may read)
	OrderSend    OrderType = 18 // the same, and send it (as nobody, who may read)
	OrderReceive OrderType = 19 // take it in where only root gets (root)
	OrderPlace   OrderType = 20 // put in place what was received (root)
	OrderUnstage OrderType = 21 // or remove it (root)
)

func (t OrderType) String() string {
	names := [...]string{"", "directory", "skeleton", "clone", "environment", "permissions", "start", "stop", "trash", "restore", "purge", "account", "repair", "take over", "why",
		"aside", "back", "survey", "send", "receive", "place", "unstage"}
	if int(t) < len(names) && t != 0 {
		return names[t]
	}
	return "unknown"
}

// An Order is one instruction to one node, signed by the server in a fixed
// binary layout (package ticket) and checked by compute and again by the
// spawner. It is good for OrderLife and for one use per effect: every order is
// idempotent, and its ID is remembered until it expires.
type Order struct {
	Type    OrderType
	ID      OrderID
	Node    NodeID // audience
	User    UserID
	Account string // Linux account name; "" in single-account mode
	UID     uint32 // of Account; what goes to the kernel
	Project ProjectID
	Dir     string // the project's directory, absolute
	Session SessionID
	App     string
	Args    []byte // JSON of the type's argument struct, signed with the rest
	Issued  time.Time
	Expires time.Time
}

// OrderLife is how long an order may be carried out after it was signed.
const OrderLife = 60 * time.Second

// CloneArgs of OrderClone.
type CloneArgs struct {
	URL string `json:"url"` // https, http, ssh or git; checked on both sides
}

// AccountArgs of OrderAccount. The order's UID 0 asks which one the account has.
type AccountArgs struct {
	Make bool `json:"make,omitempty"` // make it if it is missing; otherwise the site provides it
}

// TeamArgs of OrderPermissions: the whole team but the owner, as uids. A top
// directory that belongs to one of them goes to the order's account: the project
// was handed over.
type TeamArgs struct {
	Editors []uint32 `json:"editors,omitempty"`
	Viewers []uint32 `json:"viewers,omitempty"`
	// Public lets every account of the node read the project.
	Public bool `json:"public,omitempty"`
	// Denied are people whose rights were taken or lowered. They get no right on
	// the top directory, whatever lies below it still says.
	Denied []uint32 `json:"denied,omitempty"`
	// Expel are those of them whose processes in the project end now.
	Expel []uint32 `json:"expel,omitempty"`
}

// A Person is an account as orders name it.
type Person struct {
	Name string `json:"name"`
	UID  uint32 `json:"uid"`
}

// RepairArgs of OrderRepair.
type RepairArgs struct {
	TeamArgs
	As    []Person `json:"as"`              // whose files, besides the owner's
	Full  bool     `json:"full,omitempty"`  // look at everything, not only at what changed
	Check bool     `json:"check,omitempty"` // change nothing, report
}

// TakeOverArgs of OrderTakeOver. The order's account becomes the author.
type TakeOverArgs struct {
	TeamArgs
	From uint32 `json:"from,omitempty"` // whose files; 0 with Look: everybody's
	Look bool   `json:"look,omitempty"` // change nothing, count
}

// WhyArgs of OrderWhy.
type WhyArgs struct {
	TeamArgs
	Who  Person `json:"who"`
	Path string `json:"path"` // below the project
}

// A Finding is what a walk through a project's files saw. It is told by
// processes of its people: words to show, not truth to act on.
type Finding struct {
	Kind     string   `json:"kind"`
	UID      uint32   `json:"uid,omitempty"` // whose files, 0 for anybody's
	N        int      `json:"n"`
	Bytes    int64    `json:"bytes,omitempty"`
	Examples []string `json:"examples,omitempty"` // names below the project, a few
}

// The kinds of findings. The words go behind a number: "3 belong to …".
const (
	FoundMasked   = "hide their entries behind a mask (after a chmod)"
	FoundMissing  = "do not name somebody of the team"
	FoundLeftOver = "name somebody who has less rights now"
	FoundOpen     = "are open to everybody outside public"
	FoundNoList   = "directories do not pass the team on to what is made in them"
	FoundForeign  = "belong to people outside the team"
	FoundLinked   = "have a second name (hard link) and are left alone"
	FoundSetID    = "run with the rights of their owner or group (setuid, setgid)"
	FoundClosed   = "directories cannot be entered"

	FoundFiles      = "files"
	FoundDirs       = "directories"
	FoundUnreadable = "cannot be read"
	FoundFixed      = "lie in a directory that cannot be changed"
	FoundLong       = "have too long a name"
	FoundHolding    = "directories hold others that cannot be moved"
	FoundBusy       = "changed meanwhile"
	FoundUntouched  = "belong to the system or a service and stay as they are"
)

// MaxTeam is how many people one project has at most: an access list has room
// for some 500 names, depending on the file system.
const MaxTeam = 400

// StartArgs of OrderStart.
type StartArgs struct {
	Label       Label  `json:"label"`
	URLPrefix   string `json:"url_prefix"` // "/notebook", or "/LABEL/notebook" on a shared origin
	ProjectName string `json:"project_name"`
	OwnerName   string `json:"owner_name"`
	UserName    string `json:"user_name"`
	Memory      int64  `json:"memory,omitempty"` // bytes, 0 = the node's default
	CPUs        int    `json:"cpus,omitempty"`   // 0 = the node's default
	Processes   int    `json:"processes,omitempty"`
}

// StopArgs of OrderStop.
type StopArgs struct {
	By string `json:"by"` // who or what, for the exit's sentence
}

// A Receipt is the answer to an order.
type Receipt struct {
	Already bool   `json:"already"`        // it was so before; nothing was done
	Note    string `json:"note,omitempty"` // one line for the timeline
	Log     string `json:"log,omitempty"`  // last lines the work printed
	UID     uint32 `json:"uid,omitempty"`  // of OrderAccount: the account's

	Survey *Survey `json:"survey,omitempty"` // of OrderSurvey, OrderSend and OrderReceive

	Findings []Finding `json:"findings,omitempty"` // of OrderRepair and OrderTakeOver
	More     bool      `json:"more,omitempty"`     // of OrderTakeOver: it is not done yet
}

// Found is how many things of a kind were found, of one person's or of all.
func (r Receipt) Found(kind string, uid uint32) (n int) {
	for _, f := range r.Findings {
		if f.Kind == kind && (uid == 0 || f.UID == uid) {
			n += f.N
		}
	}
	return n
}

// A SessionReport is a node's word on one session it holds or held.
type SessionReport struct {
	ID      SessionID    `json:"id"`
	User    UserID       `json:"user"`
	Project ProjectID    `json:"project"`
	App     string       `json:"app"`
	State   SessionState `json:"state"`
	Reason  string       `json:"reason,omitempty"`
	Log     string       `json:"log,omitempty"` // last lines, when failed
	Exit    *Exit        `json:"exit,omitempty"`
	Ready   *time.Time   `json:"ready,omitempty"`
}

// Machine is a live compute node. compute.Compute is the machine itself;
// remote.Machine is the same across the network. Errors keep their Kind.
type Machine interface {
	// Do carries out a signed order. It returns when the effect is there (for
	// OrderStart: when the process runs; readiness comes through Watch). Doing
	// the same order twice is the same as once.
	Do(ctx context.Context, order []byte) (Receipt, error)

	// Send carries out OrderSurvey or OrderSend: what is sent of a project's files
	// goes to the writer. It ends when ctx does.
	Send(ctx context.Context, order []byte, to io.Writer) (Receipt, error)

	// Receive carries out OrderReceive with what another node sends.
	Receive(ctx context.Context, order []byte, from io.Reader) (Receipt, error)

	// Watch tells the node the feed and hears its sessions until ctx ends or the
	// link breaks. The first report lists every session the node knows
	// (Full true); later ones only what changed, and one at least each second.
	Watch(ctx context.Context, down <-chan Feed, up func(NodeReport)) error

	// Health is what the node says of itself now.
	Health(ctx context.Context) (NodeHealth, error)

	// Log returns the last n bytes a session printed.
	Log(ctx context.Context, id SessionID, n int) (string, error)
}

// A Feed goes down to nodes and gateways at least each second: it is their
// heartbeat. Revocations are those since the last one; on the first Feed of a
// link (Full true) all that can still matter (24 h).
type Feed struct {
	Full        bool         `json:"full,omitempty"`
	Seq         int64        `json:"seq"` // of the newest revocation
	Time        time.Time    `json:"time"`
	Revocations []Revocation `json:"revocations,omitempty"`
	// Certificate (PEM) is a newer one for the listener.
	Certificate []byte `json:"certificate,omitempty"`
	// Authorities (PEM) are those whose certificates count from now on: when Full,
	// and when they change.
	Authorities []byte `json:"authorities,omitempty"`
	// Removed: the listener is not part of the installation any more. It lets go
	// of everybody who uses it; there will be no other word.
	Removed bool `json:"removed,omitempty"`
}

// A NodeReport comes up from a node.
type NodeReport struct {
	Full     bool            `json:"full,omitempty"`
	Seq      int64           `json:"seq"` // the revocation up to which all is closed and dead
	Sessions []SessionReport `json:"sessions,omitempty"`
	Health   *NodeHealth     `json:"health,omitempty"`   // every few seconds
	Identity *PeerIdentity   `json:"identity,omitempty"` // on the first report of a link, and when it changed
	// Own names the apps of NodeHealth.Others that projects' own environments have:
	// all when Full, else what changed.
	Own map[ProjectID][]string `json:"own,omitempty"`
}

// A Route tells a gateway where one app of one person in one project is.
type Route struct {
	Label       Label        `json:"label"`
	User        UserID       `json:"user"`
	UserName    string       `json:"user_name"`
	Project     ProjectID    `json:"project"`
	OwnerName   string       `json:"owner_name"`
	ProjectName string       `json:"project_name"`
	App         string       `json:"app"`
	AppTitle    string       `json:"app_title"`
	Permit      string       `json:"permission"` // of the app: "read" or "write"
	Content     bool         `json:"content,omitempty"`
	Session     SessionID    `json:"session"`
	Node        NodeID       `json:"node"`
	State       SessionState `json:"state"`
	Reason      string       `json:"reason,omitempty"` // why it ended, or what it is doing ("Making the environment")
	Log         string       `json:"log,omitempty"`
	Gone        bool         `json:"gone,omitempty"` // in a change: forget it
	// Version is the count of changes to the database that it was read after: of
	// two words on one app the one with the higher count is the newer. 0 on a
	// list: that of the feed.
	Version int64 `json:"version,omitempty"`
}

// A GatewayFeed goes down to a gateway.
type GatewayFeed struct {
	Feed
	Routes []Route           `json:"routes,omitempty"` // all when Full, else changes
	Nodes  map[NodeID]string `json:"nodes,omitempty"`  // addresses; all, when it changed
	Keys   map[NodeID]string `json:"keys,omitempty"`   // with Nodes: the fingerprints of their keys, where known
	Site   *GatewaySite      `json:"site,omitempty"`   // when Full, if the server knows them
	// Version is the age of Routes, when Full, and of Nodes, as Route.Version.
	Version int64 `json:"version,omitempty"`
	// Renewed answers GatewayReport.Renew by number: a new grant, or none when
	// the right is gone.
	Renewed []Renewed `json:"renewed,omitempty"`
	Joined  []Joined  `json:"joined,omitempty"`
}

// A GatewaySite is where browsers find the portal and the gateway's apps. A
// gateway that was started with other addresses starts again with these.
type GatewaySite struct {
	Portal string `json:"portal"`
	Apps   string `json:"apps"`
}

type Renewed struct {
	N     int64  `json:"n"`
	Grant []byte `json:"grant,omitempty"` // nil: refused
}

// A GatewayReport comes up from a gateway.
type GatewayReport struct {
	Seq      int64             `json:"seq"` // the revocation up to which all sockets are closed
	Version  string            `json:"version,omitempty"`
	Identity *PeerIdentity     `json:"identity,omitempty"` // on the first report of a link, and when it changed
	Joins    []JoinAsk         `json:"joins,omitempty"`    // of machines that can reach the gateway alone
	Renew    []RenewAsk        `json:"renew,omitempty"`
	Active   []ProjectID       `json:"active,omitempty"`    // projects with traffic in the last minute
	NodeAway map[NodeID]string `json:"node_away,omitempty"` // nodes it cannot reach, why
}

// A JoinAsk is a request to join that a gateway passes on. It can neither read
// a secret in it nor change it.
type JoinAsk struct {
	N       int64  `json:"n"`
	Request []byte `json:"request"`
}

// A Joined is the answer to one.
type Joined struct {
	N      int64  `json:"n"`
	Answer []byte `json:"answer,omitempty"`
	Error  *Error `json:"error,omitempty"`
}

type RenewAsk struct {
	N     int64  `json:"n"`
	Grant []byte `json:"grant"` // the old one; the server checks it and the login again
}

// MaxServers is how many server processes an installation has at most, workers
// among them: each keeps a stream of its own to every gateway and node.
const MaxServers = 8

// Gateway is the live door of a data center. gateway.Gateway is the door
// itself; remote.Gateway the same across the network.
type Gateway interface {
	// Attach runs a stream that a server opens down, until ctx ends or the link
	// breaks. There may be MaxServers of them.
	Attach(ctx context.Context, down <-chan GatewayFeed, up func(GatewayReport)) error
}
