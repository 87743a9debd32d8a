package spawner

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"quire"
)

func jsonArgs(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// carry gives an order with a pipe: what it writes is returned, or what it reads.
func (l *lab) carry(o quire.Order, in []byte) (answer, []byte, error) {
	l.t.Helper()
	r, w, err := os.Pipe()
	l.check(err)
	done := make(chan []byte, 1)
	theirs := w
	if in != nil {
		theirs = r
		go func() {
			w.Write(in)
			w.Close()
			done <- nil
		}()
	} else {
		go func() {
			b, _ := io.ReadAll(r)
			done <- b
		}()
	}
	a, err := l.s.answer(context.Background(), ask{Op: "order", Order: l.signer.Order(o)}, []*os.File{theirs})
	theirs.Close()
	out := <-done
	r.Close()
	w.Close()
	return a, out, err
}

// listed is everything about a tree that a move keeps, a line for each name.
func listed(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		fmt.Fprintf(&b, "%q %o %d:%d %d.%09d %d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec, st.Nlink)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %x same as %q", len(data), hashOf(data), first[st.Ino])
			if first[st.Ino] == "" {
				first[st.Ino] = rel
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %q", to)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
				x := make([]byte, 4096)
				if n, err := unix.Lgetxattr(path, name, x); err == nil {
					fmt.Fprintf(&b, " %s=%x", name, x[:n])
				}
			}
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func sh(t *testing.T, dir, script string) string {
	t.Helper()
	c := exec.Command("bash", "-ec", script)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// A project as people have it: several authors, lists, names of any bytes, links
// of both kinds, holes. What is moved is the same in everything that a move
// keeps, and nothing is moved that cannot be.
func TestMove(t *testing.T) {
	l := newLab(t)
	dir := l.c.ProjectRoot + "/alice/p"
	must := func(a answer, err error) answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	must(l.ask(l.order(quire.OrderDirectory)))
	root := os.Geteuid() == 0
	people := []quire.Person{{Name: l.name, UID: l.uid}}
	var expel []uint32
	if root {
		l.t.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
		for _, who := range []string{"-u 2051 -U mvbob", "-u 2052 -U mveve"} {
			if _, err := os.Stat("/home/" + who[len(who)-5:]); err != nil {
				sh(t, "/", "useradd -m "+who)
			}
		}
		sh(t, "/", "getent group lab >/dev/null || groupadd -g 3333 lab")
		people = append(people, quire.Person{Name: "mvbob", UID: 2051})
		expel = []uint32{2001, 2051}
	}
	sh(t, dir, `
printf hello > file; chmod 640 file; touch -d '2001-02-03 04:05:06.789' file
printf x > $'odd \n\xff\xfename'; printf y > '-rf'; printf z > '*'
mkdir -p a/b/c empty; printf deep > a/b/c/deep; touch -d '1999-01-01' a/b
ln file a/again; ln -s /etc/passwd out; ln -s ../nowhere a/dangling
head -c 300000 /dev/urandom > big; truncate -s 200M hole; printf end >> hole; : > nothing
head -c 65536 /dev/zero > zeros; head -c 70000 /dev/zero > more-zeros; printf q >> more-zeros
mkfifo pipe`)
	if root {
		sh(t, dir, `chown -R -h alice:alice . ; setfacl -m u:2051:rwx,d:u:2051:rwx . a a/b; setfacl -m u:2051:r--,u:2099:rw-,g:lab:r-- file
printf his > a/his; chown mvbob:mvbob a/his; chmod 600 a/his; setfacl -m u:2001:rw- a/his; chgrp 4444 big; chmod 664 big`)
	}
	sh(t, dir, `chmod 4755 '*'`)
	before := listed(t, dir)

	// Members' processes that have something open there are ended, and nobody gets in.
	var open *exec.Cmd
	if root {
		open = exec.Command("sleep", "1000")
		open.Dir = dir + "/a"
		open.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 2051, Gid: 2051}}
		if err := open.Start(); err != nil {
			t.Fatal(err)
		}
	}
	args := quire.MoveArgs{TeamArgs: quire.TeamArgs{Expel: expel}}
	with := func(a quire.MoveArgs) func(*quire.Order) {
		return func(o *quire.Order) { o.Args = jsonArgs(t, a) }
	}
	must(l.ask(l.order(quire.OrderAside, with(args))))
	if a := must(l.ask(l.order(quire.OrderAside, with(args)))); !a.Already {
		t.Error("it was taken aside twice")
	}
	if root {
		if err := open.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("a process in the project: %v", err)
		}
	}
	aside := l.c.ProjectRoot + "/.stage/p_aaaaaaaaaaaaaaaa.out"
	staged := l.c.ProjectRoot + "/.stage/p_aaaaaaaaaaaaaaaa.in"
	if st, err := os.Stat(l.c.ProjectRoot + "/.stage"); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("others get to it: %v %v", st, err)
	}
	if _, err := l.ask(l.order(quire.OrderPermissions)); quire.KindOf(err) != quire.KindUnavailable {
		t.Errorf("permissions meanwhile: %v", err)
	}

	look := must2(l.carry(l.order(quire.OrderSurvey, with(quire.MoveArgs{})), nil))(t).Survey
	if look.Files != 13+b2i(root) || look.Dirs != 5 || look.Bytes < 200<<20 || look.Room > 2<<20 {
		t.Errorf("a look: %+v", look)
	}
	if len(look.Left) != 2 || look.Left[1].Kind != quire.LeftSetID && look.Left[0].Kind != quire.LeftSetID {
		t.Errorf("left: %+v", look.Left)
	}
	if root && (len(look.Owners) != 2 || look.Owners[2051] != "a/his" || !strings.Contains(fmt.Sprint(look.Groups), "lab") || !strings.Contains(fmt.Sprint(look.Named), "2099")) {
		t.Errorf("a look: %+v", look)
	}
	all := quire.MoveArgs{People: people, Groups: look.Groups, Files: look.Files + look.Dirs, Bytes: look.Bytes, Sum: true}
	if _, _, err := l.carry(l.order(quire.OrderSend, with(quire.MoveArgs{Groups: look.Groups})), nil); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("somebody's who is not among the people: %v", err)
	}
	sum := must2(l.carry(l.order(quire.OrderSurvey, with(all)), nil))(t).Survey
	sent, stream, err := l.carry(l.order(quire.OrderSend, with(all)), nil)
	must(sent, err)
	if !bytes.Equal(sum.Digest, sent.Survey.Digest) || len(sum.Digest) != 32 || len(stream) > 2<<20 {
		t.Errorf("sent %x, read %x, %d bytes", sent.Survey.Digest, sum.Digest, len(stream))
	}
	got := must2(l.carry(l.order(quire.OrderReceive, with(all)), stream))(t).Survey
	if !bytes.Equal(got.Digest, sum.Digest) || got.Files != sum.Files {
		t.Errorf("received %+v, not %+v", got, sum)
	}
	again := all
	again.Staged = true
	if copied := must2(l.carry(l.order(quire.OrderSurvey, with(again)), nil))(t).Survey; !bytes.Equal(copied.Digest, sum.Digest) {
		t.Errorf("the copy has the sum %x, not %x", copied.Digest, sum.Digest)
	}
	// One byte makes a difference, and one second, and one right.
	for _, change := range []string{`printf j | dd of=file bs=1 conv=notrunc status=none; touch -d '2001-02-03 04:05:06.789' file`, `touch -d '2001-02-03 04:05:07' file`, `chmod 600 -- -rf`, `rm a/again`, fmt.Sprintf(`ln -sfn /etc/shadow out; chown -h %d out`, l.uid)} {
		sh(t, staged, change)
		if copied := must2(l.carry(l.order(quire.OrderSurvey, with(again)), nil))(t).Survey; bytes.Equal(copied.Digest, sum.Digest) {
			t.Errorf("%s makes no difference", change)
		}
		must2(l.carry(l.order(quire.OrderReceive, with(all)), stream))(t)
	}

	// What was left out or made safe is the only difference.
	want := before
	drop := func(pattern string) {
		lines := strings.SplitAfter(want, "\n")
		n := len(lines)
		for i, line := range lines {
			if strings.HasPrefix(line, pattern) {
				lines = append(lines[:i], lines[i+1:]...)
				break
			}
		}
		if len(lines) != n-1 {
			t.Errorf("there is no %q in\n%s", pattern, want)
		}
		want = strings.Join(lines, "")
	}
	drop(`"pipe" `)
	have := listed(t, staged)
	line := func(list, name string) string {
		for l := range strings.Lines(list) {
			if strings.HasPrefix(l, fmt.Sprintf("%q ", name)) {
				return l
			}
		}
		return ""
	}
	if l := line(have, "*"); !strings.HasPrefix(l, `"*" 100755 `) {
		t.Errorf("with the rights of its owner: %s", l)
	}
	differs := []string{"*", "."} // "." has lost a name, so its time is another
	if root {
		differs = append(differs, "file", "a/again", "big")
		if l := line(have, "big"); !strings.HasPrefix(l, `"big" 100664 2001:`+gidOf(t, "alice")+" ") || !strings.Contains(sh(t, staged, "getfacl -n -c big"), "group::---") {
			t.Errorf("of a group that nobody knows: %s", l)
		}
		out := sh(t, staged, "getfacl -n -c file")
		if strings.Contains(out, "2099") || !strings.Contains(out, "user:2051:r--") || !strings.Contains(out, "group:3333:r--") {
			t.Errorf("the list of file: %s", out)
		}
	}
	for _, name := range differs {
		if name == "." {
			continue
		}
		want, have = strings.Replace(want, line(want, name), "", 1), strings.Replace(have, line(have, name), "", 1)
	}
	if want != have {
		t.Errorf("before:\n%s\nafter:\n%s", want, have)
	}
	var st unix.Stat_t
	if err := unix.Lstat(staged+"/hole", &st); err != nil || st.Blocks > 1000 {
		t.Errorf("a hole became %d blocks, %v", st.Blocks, err)
	}
	if listed(t, aside) != before {
		t.Error("reading changed what was read")
	}

	// In place, with the team of now.
	place := quire.MoveArgs{}
	if root {
		place.Editors = []uint32{2051}
	}
	if _, err := l.ask(l.order(quire.OrderBack)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ask(l.order(quire.OrderPlace, with(place))); quire.KindOf(err) != quire.KindConflict {
		t.Errorf("over one that is there: %v", err)
	}
	if listed(t, dir) != before {
		t.Error("it is not as it was after it was put back")
	}
	must(l.ask(l.order(quire.OrderAside, with(args))))
	must(l.ask(l.order(quire.OrderPlace, with(place))))
	if a := must(l.ask(l.order(quire.OrderPlace, with(place)))); !a.Already {
		t.Error("it was put in place twice")
	}
	must(l.ask(l.order(quire.OrderUnstage)))
	must(l.ask(l.order(quire.OrderTrash, with(quire.MoveArgs{Aside: true}))))
	if _, err := os.Stat(l.c.ProjectRoot + "/alice/.moved-p_aaaaaaaaaaaaaaaa/file"); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(l.c.ProjectRoot + "/.stage")
	if err != nil || len(left) != 0 {
		t.Errorf("left in staging: %v %v", left, err)
	}
	// It can be deleted here and brought back, whatever an earlier one has left.
	must(l.ask(l.order(quire.OrderTrash)))
	must(l.ask(l.order(quire.OrderPurge, with(quire.MoveArgs{Aside: true}))))
	must(l.ask(l.order(quire.OrderRestore)))
	if _, err := os.ReadFile(dir + "/a/b/c/deep"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.c.ProjectRoot + "/alice/.moved-p_aaaaaaaaaaaaaaaa"); err == nil {
		t.Error("what it left is still there")
	}
}

func must2(a answer, _ []byte, err error) func(*testing.T) answer {
	return func(t *testing.T) answer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func gidOf(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(sh(t, "/", "getent group "+name+" | cut -d: -f3"))
}

// What arrives is hostile: nothing is made outside, of somebody else, or more
// than was said, and what was made is gone when it is refused.
//
//fault:node what arrives of a project that moves is hostile
//fault:seen the move fails
//fault:lost nothing, and nothing of it stays
//fault:repair nothing is broken
func TestHostileStream(t *testing.T) {
	l := newLab(t)
	var b bytes.Buffer
	frame := func(kind byte, body []byte) {
		b.WriteByte(kind)
		b.Write([]byte{byte(len(body) >> 24), byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))})
		b.Write(body)
	}
	group := strings.TrimSpace(sh(t, "/", fmt.Sprintf("id -gn %d", l.uid)))
	base := entry{UID: l.uid, Group: group, Mode: 0o644}
	as := func(f func(*entry)) []byte {
		e := base
		f(&e)
		return jsonArgs(t, e)
	}
	named := func(name string) []byte { return as(func(e *entry) { e.Name = []byte(name) }) }
	dir := func() { frame(frameDir, as(func(e *entry) { e.Mode = 0o755 })) }
	empty := func(e []byte) { frame(frameFile, e); frame(frameSum, hashOf(nil)) }
	end := func() { frame(frameUp, nil); frame(frameEnd, nil) }
	outside := t.TempDir()
	for name, make := range map[string]func(){
		"nothing":         func() {},
		"only an end":     func() { frame(frameEnd, nil) },
		"an end too soon": func() { dir(); frame(frameEnd, nil) },
		"two trees":       func() { dir(); frame(frameUp, nil); dir(); end() },
		"up and up":       func() { dir(); frame(frameUp, nil); frame(frameUp, nil) },
		"no tree":         func() { empty(named("f")); frame(frameEnd, nil) },
		"a name of two":   func() { dir(); empty(named("a/b")); end() },
		"up":              func() { dir(); empty(named("..")); end() },
		"itself":          func() { dir(); empty(named(".")); end() },
		"no name":         func() { dir(); empty(named("")); end() },
		"a zero in it":    func() { dir(); empty(named("a\x00b")); end() },
		"a long name":     func() { dir(); empty(named(strings.Repeat("n", 256))); end() },
		"a name twice":    func() { dir(); empty(named("a")); empty(named("a")); end() },
		"through a link": func() {
			dir()
			frame(frameLink, as(func(e *entry) { e.Name, e.To = []byte("l"), []byte(outside) }))
			frame(frameDir, named("l"))
			empty(named("x"))
			frame(frameUp, nil)
			end()
		},
		"another name behind a link": func() {
			dir()
			frame(frameLink, as(func(e *entry) { e.Name, e.To = []byte("l"), []byte("/etc") }))
			frame(frameAlso, as(func(e *entry) { e.Name, e.To = []byte("p"), []byte("l/passwd") }))
			end()
		},
		"another name outside": func() {
			dir()
			frame(frameAlso, as(func(e *entry) { e.Name, e.To = []byte("p"), []byte("../../../../etc/passwd") }))
			end()
		},
		"another name, absolute": func() {
			dir()
			frame(frameAlso, as(func(e *entry) { e.Name, e.To = []byte("p"), []byte("/etc/passwd") }))
			end()
		},
		"another name of a directory": func() {
			dir()
			frame(frameDir, named("d"))
			frame(frameUp, nil)
			frame(frameAlso, as(func(e *entry) { e.Name, e.To = []byte("p"), []byte("d") }))
			end()
		},
		"of root":              func() { dir(); empty(as(func(e *entry) { e.Name, e.UID = []byte("f"), 0 })); end() },
		"of a stranger":        func() { dir(); empty(as(func(e *entry) { e.Name, e.UID = []byte("f"), 31337 })); end() },
		"of a strange group":   func() { dir(); empty(as(func(e *entry) { e.Name, e.Group = []byte("f"), "daemon" })); end() },
		"setuid":               func() { dir(); empty(as(func(e *entry) { e.Name, e.Mode = []byte("f"), 0o4755 })); end() },
		"a device by its mode": func() { dir(); empty(as(func(e *entry) { e.Name, e.Mode = []byte("f"), 0o20666 })); end() },
		"a kind of its own":    func() { dir(); frame('c', named("null")); end() },
		"a list for a stranger": func() {
			dir()
			empty(as(func(e *entry) {
				e.Name = []byte("f")
				e.Access = []grant{{Tag: 1}, {Tag: 2, UID: 31337, Perm: 7}, {Tag: 4}, {Tag: 16, Perm: 7}, {Tag: 32}}
			}))
			end()
		},
		"half a list": func() {
			dir()
			empty(as(func(e *entry) { e.Name = []byte("f"); e.Access = []grant{{Tag: 1, Perm: 7}} }))
			end()
		},
		"more names": func() {
			dir()
			for i := range 20 {
				empty(named(fmt.Sprint(i)))
			}
			end()
		},
		"more bytes": func() { dir(); frame(frameFile, as(func(e *entry) { e.Name, e.Size = []byte("f"), 1<<40 })); end() },
		"less than it says": func() {
			dir()
			frame(frameFile, as(func(e *entry) { e.Name, e.Size = []byte("f"), 5 }))
			frame(frameSum, hashOf(nil))
			end()
		},
		"more than it says": func() {
			dir()
			frame(frameFile, as(func(e *entry) { e.Name, e.Size = []byte("f"), 5 }))
			frame(frameBytes, []byte("123456"))
			frame(frameSum, hashOf([]byte("123456")))
			end()
		},
		"zeros without end": func() {
			dir()
			frame(frameFile, as(func(e *entry) { e.Name, e.Size = []byte("f"), 5 }))
			frame(frameZeros, []byte{255, 255, 255, 255, 255, 255, 255, 255})
			end()
		},
		"another sum": func() {
			dir()
			frame(frameFile, as(func(e *entry) { e.Name, e.Size = []byte("f"), 5 }))
			frame(frameBytes, []byte("12345"))
			frame(frameSum, hashOf([]byte("54321")))
			end()
		},
		"a frame without end": func() { dir(); b.Write([]byte{frameFile, 0xff, 0xff, 0xff, 0xff}) },
		"cut off": func() {
			dir()
			frame(frameFile, as(func(e *entry) { e.Name, e.Size = []byte("f"), 5 }))
			b.WriteString("b\x00")
		},
		"too deep": func() {
			dir()
			for range 450 {
				frame(frameDir, named("d"))
			}
		},
		"no time": func() { dir(); empty(as(func(e *entry) { e.Name, e.Nsec = []byte("f"), 1<<40 })); end() },
	} {
		b.Reset()
		make()
		args := quire.MoveArgs{People: []quire.Person{{Name: l.name, UID: l.uid}}, Groups: []string{group}, Files: 10, Bytes: 10}
		if name == "too deep" {
			args.Files = 1000
		}
		_, _, err := l.carry(l.order(quire.OrderReceive, func(o *quire.Order) { o.Args = jsonArgs(t, args) }), b.Bytes())
		if err == nil {
			t.Errorf("%s: it was taken", name)
		} else if k := quire.KindOf(err); k != quire.KindFailed && k != quire.KindUnavailable {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := os.ReadDir(l.c.ProjectRoot + "/.stage"); err != nil || len(left) != 0 {
			t.Errorf("%s: left: %v %v", name, left, err)
		}
	}
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("made outside: %v", left)
	}
}

// A disk that is full in the middle: a sentence, and nothing is left.
func TestMoveToAFullDisk(t *testing.T) {
	l := newLab(t)
	if os.Geteuid() != 0 {
		return // nothing can be mounted
	}
	if err := unix.Mount("small", l.c.ProjectRoot, "tmpfs", 0, "size=1m,mode=0711"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(l.c.ProjectRoot, unix.MNT_DETACH)
	l.forget()
	l.again()
	src := t.TempDir()
	sh(t, src, "head -c 3000000 /dev/urandom > big; chown -R 2001 .")
	out, err := os.Create(t.TempDir() + "/stream")
	l.check(err)
	p := packer{packing: packing{Dir: src, Send: true, Owners: map[uint32]uint32{2001: 2001}, Groups: map[uint32]string{0: "root", 2001: "alice"}}}
	l.check(p.run(out))
	stream, err := os.ReadFile(out.Name())
	l.check(err)
	args := quire.MoveArgs{People: []quire.Person{{Name: "alice", UID: 2001}}, Groups: []string{"root", "alice"}, Files: 10, Bytes: 10 << 20}
	_, _, err = l.carry(l.order(quire.OrderReceive, func(o *quire.Order) { o.Args = jsonArgs(t, args) }), stream)
	if quire.KindOf(err) != quire.KindFailed || !strings.Contains(quire.AsError(err).Message, "disk is full") {
		t.Errorf("it says %v", err)
	}
	if left, err := os.ReadDir(l.c.ProjectRoot + "/.stage"); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// An account with another number, a group that is not there: nothing is taken in.
func TestMoveNeedsTheSameAccounts(t *testing.T) {
	l := newLab(t)
	if os.Geteuid() != 0 {
		return // there is one account
	}
	for name, args := range map[string]quire.MoveArgs{
		"another uid":   {People: []quire.Person{{Name: "alice", UID: 2777}}},
		"no account":    {People: []quire.Person{{Name: "nosuch", UID: 2778}}},
		"root":          {People: []quire.Person{{Name: "root", UID: 0}}},
		"a named other": {People: []quire.Person{{Name: "alice", UID: 2001}}, Named: []quire.Person{{Name: "carol", UID: 1}}},
		"no group":      {People: []quire.Person{{Name: "alice", UID: 2001}}, Groups: []string{"nosuchgroup"}},
	} {
		a, _, err := l.carry(l.order(quire.OrderReceive, func(o *quire.Order) { o.Args = jsonArgs(t, args) }), []byte{})
		if err == nil || errors.Is(err, errHostile) || quire.KindOf(err) == quire.KindUnavailable {
			t.Errorf("%s: %+v %v", name, a, err)
		}
	}
}

// FuzzUnpack: no bytes make anything outside of the tree, or panic.
func FuzzUnpack(f *testing.F) {
	uid := uint32(os.Geteuid())
	var buf bytes.Buffer
	src := f.TempDir()
	if err := errors.Join(os.WriteFile(src+"/a", []byte("hello"), 0o644), os.Mkdir(src+"/d", 0o755), os.Link(src+"/a", src+"/d/b"), os.Symlink("../..", src+"/d/l"), os.Truncate(src+"/a", 1<<20)); err != nil {
		f.Fatal(err)
	}
	out, err := os.Create(f.TempDir() + "/stream")
	if err != nil {
		f.Fatal(err)
	}
	p := packer{packing: packing{Dir: src, Send: true, Owners: map[uint32]uint32{uid: 7}, Groups: map[uint32]string{7: "g", uint32(os.Getegid()): "g"}}}
	if err := p.run(out); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(out.Name())
	if err != nil {
		f.Fatal(err)
	}
	buf.Write(whole)
	f.Add(whole)
	f.Add([]byte("X\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		outer := t.TempDir()
		if err := os.Mkdir(outer+"/stage", 0o700); err != nil {
			t.Fatal(err)
		}
		d, err := os.Open(outer + "/stage")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		u := unpacker{in: bufio.NewReader(bytes.NewReader(in)), stage: int(d.Fd()), top: "tree", keeper: 1,
			owners: map[uint32]bool{uid: true}, groups: map[string]uint32{"g": 7}, files: 100, bytes: 2 << 20}
		got, err := u.run()
		if err == nil && bytes.Equal(in, whole) && got.Files != 3 {
			t.Errorf("%+v", got)
		}
		for dir, n := range map[string]int{outer: 1, outer + "/stage": 1} {
			if names, err := os.ReadDir(dir); err != nil || len(names) > n {
				t.Errorf("in %s there are %v, %v", dir, names, err)
			}
		}
		if err := remove(int(d.Fd()), "tree"); err != nil {
			t.Errorf("it cannot be removed: %v", err)
		}
		if names, _ := os.ReadDir(outer + "/stage"); len(names) != 0 {
			t.Errorf("left: %v", names)
		}
	})
}

func hashOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}
