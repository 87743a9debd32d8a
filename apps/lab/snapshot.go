package lab

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"quire"
	"quire/apps/files"
)

const (
	maxSnapshot   = maxParsed           // bytes of a file that is kept
	shelfBytes    = 100 << 20           // compressed, of one file's snapshots
	shelfNewest   = 10                  // kept whatever their age
	shelfLife     = 30 * 24 * time.Hour // of one for each day
	shelfHours    = 24 * time.Hour      // of one for each hour
	maxShelf      = 500                 // names looked at
	snapshotStamp = "20060102-150405.000"
)

// snapshots are what files were when they were saved, each beside its file in
// .ipynb_checkpoints, which Jupyter's tools know and leave alone: whoever may
// work in the directory finds them. Where this person may not write, they are in
// the person's home.
type snapshots struct {
	tree *files.Tree
	home *files.Tree // nil if there is none
}

// A snapshot of a file.
type snapshot struct {
	ID     string
	At     time.Time
	UID    uint32 // who kept it
	digest string
	size   int64 // compressed
	tree   *files.Tree
	file   string
}

var snapshotForm = regexp.MustCompile(`^(\d{8}-\d{9})-([0-9a-f]{32})\.gz$`)

func digestBytes(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// shelf is where a file's snapshots are.
func shelf(file string) string {
	return path.Join(path.Dir(file), ".ipynb_checkpoints/quire", path.Base(file))
}

// homeShelf is where they are in the person's home.
func (s *snapshots) homeShelf(file string) string {
	return "snapshots/" + digestBytes([]byte(s.tree.Path+"/"+file)) + "-" + path.Base(file)[:min(len(path.Base(file)), 200)]
}

// list gives the snapshots of a file, the oldest first.
func (s *snapshots) list(file string) []snapshot {
	out := listShelf(s.tree, shelf(file))
	if s.home != nil {
		out = append(out, listShelf(s.home, s.homeShelf(file))...)
	}
	slices.SortFunc(out, func(a, b snapshot) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func listShelf(t *files.Tree, dir string) []snapshot {
	entries, _, err := t.List(dir, "", maxShelf)
	if err != nil {
		return nil
	}
	var out []snapshot
	for _, e := range entries {
		m := snapshotForm.FindStringSubmatch(e.Name)
		if m == nil || e.Kind != files.File {
			continue
		}
		at, err := time.Parse(snapshotStamp, m[1][:15]+"."+m[1][15:])
		if err != nil {
			continue
		}
		out = append(out, snapshot{ID: strings.TrimSuffix(e.Name, ".gz"), At: at, UID: e.UID, digest: m[2], size: e.Size, tree: t, file: path.Join(dir, e.Name)})
	}
	return out
}

// keep makes a snapshot of a file's content, unless there is one already.
func (s *snapshots) keep(file string, content []byte) error {
	if len(content) > maxSnapshot {
		return quire.Failed("The file is too large for a snapshot.", nil)
	}
	digest := digestBytes(content)
	have := s.list(file)
	for _, h := range have {
		if h.digest == digest {
			return nil
		}
	}
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := z.Write(content); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	now := time.Now().UTC()
	id := strings.Replace(now.Format(snapshotStamp), ".", "", 1) + "-" + digest
	// Who may not read the file may not read what it was.
	place := path.Join(shelf(file), id+".gz")
	if err = s.tree.Mkdir(shelf(file), true); err == nil {
		err = s.tree.WriteLike(place, b.Bytes(), file)
	}
	if err != nil && s.home != nil { // where nobody else reads
		if err = s.home.Mkdir(s.homeShelf(file), true); err == nil {
			_, err = s.home.Write(path.Join(s.homeShelf(file), id+".gz"), b.Bytes(), files.Absent)
		}
	}
	if err != nil {
		return err
	}
	for _, old := range surplus(append(have, snapshot{ID: id, At: now, size: int64(b.Len())}), now) {
		// Another member's may be in a directory where only they may delete.
		old.tree.Delete(context.Background(), old.file, func(files.Progress) {})
	}
	return nil
}

// surplus are the snapshots to let go: of a list, the oldest first, the newest
// stay, then one for each hour of a day, then one for each day of a month, and
// of these as many as there is room for.
func surplus(list []snapshot, now time.Time) []snapshot {
	var out []snapshot
	var room int64
	seen := map[string]bool{}
	for i := len(list) - 1; i >= 0; i-- {
		sn, age := list[i], now.Sub(list[i].At)
		slot := sn.At.Format("0102")
		if age < shelfHours {
			slot = sn.At.Format("010215")
		}
		newest := len(list)-1-i < shelfNewest
		room += sn.size
		switch {
		case len(list)-1-i < 2: // what was, and what is
		case room > shelfBytes, !newest && (seen[slot] || age > shelfLife):
			out = append(out, sn)
			room -= sn.size
			continue
		}
		if !newest {
			seen[slot] = true
		}
	}
	return out
}

// find gives the content that has a digest, or is a snapshot's of that ID.
func (s *snapshots) find(file, want string) ([]byte, error) {
	for _, sn := range s.list(file) {
		if sn.ID == want || sn.digest == want {
			return sn.content()
		}
	}
	return nil, quire.NotFound("snapshot")
}

// content unpacks a snapshot. It may be another member's, so neither its size
// nor its name is believed.
func (sn snapshot) content() ([]byte, error) {
	c, err := sn.tree.Read(sn.file, maxSnapshot+1<<20)
	if err != nil {
		return nil, err
	}
	damaged := quire.Failed("This snapshot is damaged. Choose another one.", nil)
	z, err := gzip.NewReader(bytes.NewReader(c.Bytes))
	if err != nil {
		return nil, damaged
	}
	b, err := io.ReadAll(io.LimitReader(z, maxSnapshot+1))
	if err != nil || len(b) > maxSnapshot || digestBytes(b) != sn.digest {
		return nil, damaged
	}
	return b, nil
}

// remove deletes one snapshot.
func (s *snapshots) remove(file, id string) error {
	for _, sn := range s.list(file) {
		if sn.ID == id {
			_, err := sn.tree.Delete(context.Background(), sn.file, func(files.Progress) {})
			return err
		}
	}
	return quire.NotFound("snapshot")
}

// removeAll deletes the snapshots of a file that is deleted.
func (s *snapshots) removeAll(file string) {
	s.tree.Delete(context.Background(), shelf(file), func(files.Progress) {})
	if s.home != nil {
		s.home.Delete(context.Background(), s.homeShelf(file), func(files.Progress) {})
	}
}

// rename lets them follow a file that got another name.
func (s *snapshots) rename(from, to string) error {
	var err error
	if len(listShelf(s.tree, shelf(from))) > 0 {
		if err = s.tree.Mkdir(path.Dir(shelf(to)), true); err == nil {
			err = s.tree.Rename(shelf(from), s.tree, shelf(to))
		}
	}
	if s.home != nil && len(listShelf(s.home, s.homeShelf(from))) > 0 {
		if e := s.home.Rename(s.homeShelf(from), s.home, s.homeShelf(to)); err == nil {
			err = e
		}
	}
	return err
}
