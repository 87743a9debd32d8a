package files

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"quire"
)

// People turns numbers of accounts and groups into names and back, by asking the
// machine's directory, which may be slow. What it said is kept for a while.
type People struct {
	mu     sync.Mutex
	known  map[string]known // "passwd 1000", "group staff"
	lookup func(ctx context.Context, database string, keys []string) ([]byte, error)
}

type known struct {
	name  string
	id    uint32
	there bool
	until time.Time
}

// NewPeople asks with getent, which knows every directory the machine uses.
func NewPeople() *People {
	return &People{known: map[string]known{}, lookup: func(ctx context.Context, database string, keys []string) ([]byte, error) {
		out, err := exec.CommandContext(ctx, "getent", append([]string{database, "--"}, keys...)...).Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == 2 {
			err = nil // some of them do not exist
		}
		return out, err
	}}
}

const (
	askFor  = 3 * time.Second
	keepFor = 5 * time.Minute
)

// Names gives the names of accounts; one that has none is shown as its number.
func (p *People) Names(ctx context.Context, uids []uint32) map[uint32]string {
	return p.names(ctx, "passwd", uids)
}

// Groups gives the names of groups.
func (p *People) Groups(ctx context.Context, gids []uint32) map[uint32]string {
	return p.names(ctx, "group", gids)
}

func (p *People) names(ctx context.Context, database string, ids []uint32) map[uint32]string {
	out := make(map[uint32]string, len(ids))
	var ask []string
	now := time.Now()
	p.mu.Lock()
	for _, id := range ids {
		key := strconv.FormatUint(uint64(id), 10)
		if _, there := out[id]; there {
			continue
		}
		out[id] = key
		k, ok := p.known[database+" "+key]
		switch {
		case !ok || now.After(k.until):
			ask = append(ask, key)
		case k.there:
			out[id] = k.name
		}
	}
	p.mu.Unlock()
	if len(ask) == 0 {
		return out
	}
	for key, k := range p.ask(ctx, database, ask) {
		id, err := strconv.ParseUint(key, 10, 32)
		if err == nil && k.there && k.id == uint32(id) {
			out[uint32(id)] = k.name
		}
	}
	return out
}

// ask asks for keys, numbers or names, and keeps the answers.
func (p *People) ask(ctx context.Context, database string, keys []string) map[string]known {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	out, err := p.lookup(ctx, database, keys)
	if err != nil {
		return nil
	}
	until := time.Now().Add(keepFor)
	answers := map[string]known{}
	for _, k := range keys {
		answers[k] = known{until: until}
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 3 {
			continue
		}
		id, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			continue
		}
		k := known{name: fields[0], id: uint32(id), there: true, until: until}
		for _, key := range []string{fields[0], fields[2]} {
			if _, asked := answers[key]; asked {
				answers[key] = k
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, k := range answers {
		p.known[database+" "+key] = k
	}
	return answers
}

// User finds an account by its name, or by its number written as one.
func (p *People) User(ctx context.Context, name string) (uint32, error) {
	return p.find(ctx, "passwd", name, "account")
}

// Group finds a group by its name or number.
func (p *People) Group(ctx context.Context, name string) (uint32, error) {
	return p.find(ctx, "group", name, "group")
}

func (p *People) find(ctx context.Context, database, name, what string) (uint32, error) {
	name = strings.TrimSpace(name)
	none := quire.Invalid("name", "There is no "+what+" called “"+strings.ToValidUTF8(name, "�")+"” on this machine.")
	if name == "" || strings.ContainsAny(name, ":\n\x00") || len(name) > 256 {
		return 0, none
	}
	if database == "passwd" && strings.Trim(name, "0123456789") == "" {
		return userOfDigits(ctx, name, none)
	}
	k, ok := p.ask(ctx, database, []string{name})[name]
	if !ok {
		return 0, quire.Unavailable("The directory of accounts does not answer. Try again in a moment.", nil)
	}
	if !k.there {
		return 0, none
	}
	return k.id, nil
}

// userOfDigits finds a person whose name is digits. getent would take them for a
// number, and another person might have that; id looks for the name first.
func userOfDigits(ctx context.Context, name string, none error) (uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	out, err := exec.CommandContext(ctx, "id", "-u", "--", name).Output()
	if err != nil {
		return 0, none
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(out)), 10, 32)
	if err != nil {
		return 0, none
	}
	return uint32(id), nil
}
