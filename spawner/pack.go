package spawner

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"quire"
	"quire/acl"
)

// A project's files travel as a row of frames: a byte that says what it is, four
// bytes of length, and that. The same tree gives the same bytes on every node,
// however it lies on the disk: so their sum is what two nodes compare.
const (
	frameDir   = 'd' // a directory begins: an entry; "" is the project's own
	frameUp    = 'u' // and ends
	frameFile  = 'f' // a file begins: an entry
	frameBytes = 'b' // of it: a block, the last one perhaps shorter
	frameZeros = 'z' // of it: so many blocks of zeros
	frameSum   = 'e' // of it: SHA-256 of its frames; it ends
	frameLink  = 's' // a symbolic link: an entry
	frameAlso  = 'h' // another name of a file that was there before: an entry
	frameEnd   = 'X' // all was sent

	block      = 64 << 10
	maxEntry   = 64 << 10 // bytes of an entry as JSON
	maxDepth   = 400      // directories within each other
	surveyBeat = 4 << 20  // bytes read between two signs of life
)

// entry is a name in a directory. Names are bytes, not text.
type entry struct {
	Name    []byte  `json:"n,omitempty"`
	UID     uint32  `json:"u,omitempty"`
	Group   string  `json:"g,omitempty"`
	Mode    uint32  `json:"m,omitempty"`
	Sec     int64   `json:"s,omitempty"` // when it was changed
	Nsec    int64   `json:"ns,omitempty"`
	Size    int64   `json:"l,omitempty"`
	Access  []grant `json:"a,omitempty"`
	Default []grant `json:"d,omitempty"`
	To      []byte  `json:"t,omitempty"` // of a link; of another name: the first one, from the project's directory
}

// grant is an entry of an access list: accounts by number, groups by name.
type grant struct {
	Tag   acl.Tag `json:"t"`
	UID   uint32  `json:"u,omitempty"`
	Group string  `json:"g,omitempty"`
	Perm  uint16  `json:"p,omitempty"`
}

// packing is what the process that reads a project's files is told.
type packing struct {
	Dir    string            `json:"dir"`
	Look   bool              `json:"look"` // only say whose there is what
	Send   bool              `json:"send"` // to descriptor 3; otherwise signs of life
	Owners map[uint32]uint32 `json:"owners"`
	Named  []uint32          `json:"named"`
	Groups map[uint32]string `json:"groups"`
}

// packed is what it says.
type packed struct {
	Survey quire.Survey `json:"survey"`
	GIDs   []uint32     `json:"gids"` // of a look
	Error  *quire.Error `json:"error,omitempty"`
}

// PackMain is "quire pack": it reads a project's files and writes them, or what
// they are, to descriptor 3. It runs as nobody, with the right to read everything
// and no other, on a directory that only root gets to.
func PackMain(args []string) int {
	var p packer
	var out packed
	err := errors.New("it was called in the wrong way")
	if len(args) == 1 {
		if err = json.Unmarshal([]byte(args[0]), &p.packing); err == nil {
			err = p.run(os.NewFile(3, "stream"))
		}
	}
	out.Survey, out.GIDs = p.survey, p.gids
	if err != nil {
		out.Error = quire.AsError(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil || out.Error != nil {
		return 1
	}
	return 0
}

type packer struct {
	packing
	survey quire.Survey
	gids   []uint32

	out   io.Writer // nil: nobody wants the frames
	alive io.Writer // gets a byte now and then
	since int       // bytes since the last one
	sum   hash.Hash // of all frames
	file  hash.Hash // of the file's
	block []byte
	dev   uint64
	ino   map[uint64]string // of files with more than one name: the first
	named map[uint32]bool
	left  map[string]*quire.Finding
}

func (p *packer) run(to *os.File) error {
	p.sum, p.file, p.block = sha256.New(), sha256.New(), make([]byte, block)
	p.ino, p.left, p.named = map[uint64]string{}, map[string]*quire.Finding{}, map[uint32]bool{}
	p.survey.Owners = map[uint32]string{}
	p.alive = to
	var buffered *bufio.Writer
	if p.Send {
		buffered = bufio.NewWriterSize(to, 4*block)
		p.out, p.alive = buffered, nil
	}
	fd, err := unix.Open(p.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return readError("", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return readError("", err)
	}
	p.dev = st.Dev
	err = p.dir(fd, "", st, entry{}, 0)
	if err == nil {
		err = p.frame(frameEnd, nil)
	}
	if err == nil && buffered != nil {
		err = buffered.Flush()
	}
	for uid := range p.named {
		p.survey.Named = append(p.survey.Named, uid)
	}
	slices.Sort(p.survey.Named)
	for _, f := range p.left {
		p.survey.Left = append(p.survey.Left, *f)
	}
	slices.SortFunc(p.survey.Left, func(a, b quire.Finding) int { return cmp.Compare(a.Kind, b.Kind) })
	if !p.Look {
		p.survey.Digest = p.sum.Sum(nil)
	}
	return err
}

func readError(path string, err error) error {
	path = shown(path)
	switch {
	case errors.Is(err, unix.ENOENT):
		return changed(path)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return quire.Failed("Quire cannot read "+path+" on this node. If the project lies on a file server, the server refuses it.", err)
	}
	return quire.Failed("Reading "+path+" failed: the node's disk reports an error.", err)
}

// shown is a name below the project for a sentence: it may be any bytes, and long.
func shown(path string) string {
	if path == "" {
		return "its directory"
	}
	return strconv.QuoteToGraphic(fmt.Sprintf("%.100s", path))
}

func changed(path string) error {
	return quire.Conflict("", "In the project, "+shown(path)+" changed while the files were read. Something still writes there; end it and try again.")
}

// at opens a name in a directory as a place only: nothing is opened, no link
// followed, no other file system entered.
func at(dir int, name string) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// reopen opens exactly what a place holds.
func reopen(fd int, flags int) (*os.File, error) {
	n, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(n), "it"), nil
}

// dir takes a directory in. held is closed.
func (p *packer) dir(held int, path string, st unix.Stat_t, e entry, depth int) error {
	e, err := p.describe(held, path, st, e, true)
	if err != nil {
		unix.Close(held)
		return err
	}
	d, err := reopen(held, unix.O_RDONLY|unix.O_DIRECTORY)
	unix.Close(held)
	if err != nil {
		return readError(path, err)
	}
	defer d.Close()
	p.survey.Dirs++
	p.survey.Room += st.Blocks * 512
	if depth > maxDepth {
		return quire.Conflict("", fmt.Sprintf("In %s more than %d directories lie within each other. Take them out of the project first.", shown(path), maxDepth))
	}
	if err := p.entry(frameDir, e); err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return readError(path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		below := name
		if path != "" {
			below = path + "/" + name
		}
		if err := p.name(int(d.Fd()), name, below, depth); err != nil {
			return err
		}
	}
	return p.frame(frameUp, nil)
}

func (p *packer) name(dir int, name, path string, depth int) error {
	held, err := at(dir, name)
	if errors.Is(err, unix.EXDEV) {
		p.leave(quire.LeftMounts, path)
		return nil
	}
	if err != nil {
		return readError(path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(held, &st); err != nil {
		unix.Close(held)
		return readError(path, err)
	}
	if st.Dev != p.dev {
		unix.Close(held)
		p.leave(quire.LeftMounts, path)
		return nil
	}
	e := entry{Name: []byte(name)}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return p.dir(held, path, st, e, depth+1)
	}
	defer unix.Close(held)
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFLNK {
		p.leave(quire.LeftSpecial, path)
		return nil
	}
	p.survey.Files++
	if st.Nlink > 1 {
		if first, ok := p.ino[st.Ino]; ok {
			return p.entry(frameAlso, entry{Name: e.Name, To: []byte(first)})
		}
		p.ino[st.Ino] = path
	}
	p.survey.Room += st.Blocks * 512
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		to := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(held, "", to)
		if err != nil {
			return readError(path, err)
		}
		e.To = to[:n]
		if e, err = p.describe(held, path, st, e, false); err != nil {
			return err
		}
		return p.entry(frameLink, e)
	}
	return p.content(held, path, st, e)
}

func (p *packer) leave(kind, path string) {
	f := p.left[kind]
	if f == nil {
		f = &quire.Finding{Kind: kind}
		p.left[kind] = f
	}
	f.N++
	if len(f.Examples) < 3 {
		f.Examples = append(f.Examples, shown(path))
	}
}

// describe says whose it is and who may what.
func (p *packer) describe(held int, path string, st unix.Stat_t, e entry, dir bool) (entry, error) {
	link := st.Mode&unix.S_IFMT == unix.S_IFLNK
	e.UID, e.Sec, e.Nsec = st.Uid, st.Mtim.Sec, st.Mtim.Nsec
	if !link {
		e.Mode = st.Mode & 0o777
	}
	if dir {
		e.Mode = st.Mode & 0o3777
	} else if !link && st.Mode&0o6000 != 0 {
		p.leave(quire.LeftSetID, path)
	}
	var lists [2][]acl.Entry
	for i, kind := range []acl.Kind{acl.Access, acl.Default} {
		if link || !dir && kind == acl.Default {
			continue
		}
		list, err := acl.GetHeld(held, kind)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return e, readError(path, err)
		}
		lists[i] = list
	}
	if p.Look {
		p.note(st, path, lists)
		return e, nil
	}
	primary, known := p.Owners[st.Uid]
	if !known {
		return e, changed(path)
	}
	lost := false
	e.Group = p.Groups[st.Gid]
	closed := e.Group == "" && !link // the group is nobody's: the owner's gets no right in its place
	if e.Group == "" {
		e.Group = p.Groups[primary]
	}
	for i, list := range lists {
		var out []grant
		for _, a := range list {
			g := grant{Tag: a.Tag, Perm: a.Perm}
			switch a.Tag {
			case acl.User:
				_, owns := p.Owners[a.ID]
				if g.UID = a.ID; !owns && !slices.Contains(p.Named, a.ID) {
					lost = true
					continue
				}
			case acl.Named:
				if g.Group = p.Groups[a.ID]; g.Group == "" {
					lost = true
					continue
				}
			case acl.Group:
				if closed {
					g.Perm = 0
				}
			}
			out = append(out, g)
		}
		slices.SortFunc(out, func(a, b grant) int {
			return cmp.Or(cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.UID, b.UID), cmp.Compare(a.Group, b.Group))
		})
		if i == 0 {
			e.Access = out
		} else {
			e.Default = out
		}
	}
	if closed {
		lost = true
		if len(e.Access) == 0 {
			e.Mode &^= 0o070
		}
	}
	if lost {
		p.leave(quire.LeftEntries, path)
	}
	return e, nil
}

// note is what a look remembers.
func (p *packer) note(st unix.Stat_t, path string, lists [2][]acl.Entry) {
	if _, ok := p.survey.Owners[st.Uid]; !ok && len(p.survey.Owners) < 2*quire.MaxTeam {
		p.survey.Owners[st.Uid] = fmt.Sprintf("%.60s", path)
	}
	group := func(gid uint32) {
		if !slices.Contains(p.gids, gid) && len(p.gids) < 1000 {
			p.gids = append(p.gids, gid)
		}
	}
	group(st.Gid)
	for _, list := range lists {
		for _, a := range list {
			switch a.Tag {
			case acl.User:
				if len(p.named) < 4*quire.MaxTeam {
					p.named[a.ID] = true
				}
			case acl.Named:
				group(a.ID)
			}
		}
	}
}

// content takes a file in.
func (p *packer) content(held int, path string, st unix.Stat_t, e entry) error {
	e, err := p.describe(held, path, st, e, false)
	if err != nil {
		return err
	}
	e.Size = st.Size
	p.survey.Bytes += st.Size
	if p.Look {
		return nil
	}
	if err := p.entry(frameFile, e); err != nil {
		return err
	}
	p.file.Reset()
	f, err := reopen(held, unix.O_RDONLY)
	if err != nil {
		return readError(path, err)
	}
	defer f.Close()
	if err := p.blocks(f, path, st.Size); err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Fstat(held, &now); err != nil {
		return readError(path, err)
	}
	if now.Size != st.Size || now.Mtim != st.Mtim || now.Ctim != st.Ctim {
		return changed(path)
	}
	return p.frame(frameSum, p.file.Sum(nil))
}

// blocks takes in what is in a file. What is not there, or zeros, is counted.
func (p *packer) blocks(f *os.File, path string, size int64) error {
	zeros := uint64(0)
	flush := func() error {
		if zeros == 0 {
			return nil
		}
		b := binary.BigEndian.AppendUint64(nil, zeros)
		zeros = 0
		p.file.Write(b)
		return p.frame(frameZeros, b)
	}
	for off := int64(0); off < size; off += block {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // no more data
			zeros += uint64((size - off + block - 1) / block)
			return flush()
		case err == nil && data >= off+block:
			skip := (data - off) / block
			zeros += uint64(skip)
			off += skip * block
		}
		b := p.block[:min(block, size-off)]
		if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(b))), b); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return changed(path)
		} else if err != nil {
			return readError(path, err)
		}
		if allZero(b) {
			zeros++
			if err := p.live(len(b)); err != nil {
				return err
			}
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		p.file.Write(b)
		if err := p.frame(frameBytes, b); err != nil {
			return err
		}
	}
	return flush()
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (p *packer) entry(kind byte, e entry) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if len(b) > maxEntry {
		return quire.Conflict("", fmt.Sprintf("%q lies too deep, or its access list is too long, to be sent. Take it out of the project first.", e.Name))
	}
	return p.frame(kind, b)
}

func (p *packer) frame(kind byte, b []byte) error {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(b)))
	p.sum.Write(head)
	p.sum.Write(b)
	if p.out == nil {
		return p.live(len(head) + len(b))
	}
	if _, err := p.out.Write(head); err != nil {
		return err
	}
	_, err := p.out.Write(b)
	return err
}

// live tells who waits that we are there, and finds out whether he is.
func (p *packer) live(n int) error {
	if p.since += n + 100; p.alive == nil || p.since < surveyBeat {
		return nil
	}
	p.since = 0
	_, err := p.alive.Write([]byte{'.'})
	return err
}
