package acl

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSetAndGet(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := []Entry{{Tag: Other}, {User, 12345, Read | Execute}, {Owner, 0, 7}, {User, 7, 7}, {Group, 0, 5}}
	err = Set(int(f.Fd()), Default, want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Get(int(f.Fd()), Default)
	if err != nil {
		t.Fatal(err)
	}
	sorted := []Entry{{Owner, 0, 7}, {User, 7, 7}, {User, 12345, 5}, {Group, 0, 5}, {Mask, 0, 7}, {Other, 0, 0}}
	if !slices.Equal(got, sorted) {
		t.Errorf("%v, not %v", got, sorted)
	}
	// What getfacl says, where it is installed.
	if out, err := exec.Command("getfacl", "-ncp", dir).Output(); err == nil {
		for _, line := range []string{"default:user:12345:r-x", "default:mask::rwx", "default:other::---"} {
			if !strings.Contains(string(out), line) {
				t.Errorf("%s is missing in\n%s", line, out)
			}
		}
	}
	// New children are closed to others, whatever the umask.
	if err := os.WriteFile(dir+"/child", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir + "/child")
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if none, err := Get(int(f.Fd()), Access); err != nil || none != nil {
		t.Errorf("%v %v", none, err)
	}
}

func TestEncode(t *testing.T) {
	many := []Entry{{Tag: Owner, Perm: 7}, {Tag: Group}, {Tag: Other}}
	for i := range uint32(MaxNamed) {
		many = append(many, Entry{User, 1000 + i, 7})
	}
	if _, err := Encode(many); err != nil {
		t.Error(err)
	}
	if _, err := Encode(append(many, Entry{User, 1, 7})); !errors.Is(err, ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	for _, bad := range [][]byte{nil, {2}, {1, 0, 0, 0}, {2, 0, 0, 0, 1}, {2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255}} {
		if _, err := Decode(bad); err == nil {
			t.Errorf("%v is a list", bad)
		}
	}
}

func TestValid(t *testing.T) {
	base := []Entry{{Owner, 0, 7}, {Group, 0, 5}, {Other, 0, 0}}
	if Valid(nil) != nil || Valid(base) != nil {
		t.Error("good lists are bad")
	}
	for what, bad := range map[string][]Entry{
		"no owner":     {{Group, 0, 5}, {Other, 0, 0}},
		"no mask":      {{Owner, 0, 7}, {User, 5, 7}, {Group, 0, 5}, {Other, 0, 0}},
		"twice":        {{Owner, 0, 7}, {User, 5, 7}, {User, 5, 7}, {Group, 0, 5}, {Mask, 0, 7}, {Other, 0, 0}},
		"two others":   {{Owner, 0, 7}, {Group, 0, 5}, {Other, 0, 0}, {Other, 0, 0}},
		"order":        {{Group, 0, 5}, {Owner, 0, 7}, {Other, 0, 0}},
		"order of IDs": {{Owner, 0, 7}, {User, 6, 7}, {User, 5, 7}, {Group, 0, 5}, {Mask, 0, 7}, {Other, 0, 0}},
		"no ID":        {{Owner, 0, 7}, {User, noID, 7}, {Group, 0, 5}, {Mask, 0, 7}, {Other, 0, 0}},
		"permission":   {{Owner, 0, 8}, {Group, 0, 5}, {Other, 0, 0}},
		"tag":          {{Owner, 0, 7}, {Group, 0, 5}, {Other, 0, 0}, {0x40, 0, 0}},
	} {
		if Valid(bad) == nil {
			t.Errorf("%s: %v is valid", what, bad)
		}
	}
	// One named person twice must not get past Encode, which sorts.
	if _, err := Encode(append(base, Entry{User, 5, 7}, Entry{User, 5, 4})); err == nil {
		t.Error("somebody is named twice")
	}
	if _, err := Encode(base[:2]); err == nil {
		t.Error("others are missing")
	}
}

// What we write getfacl reads, and what setfacl writes we read: the mask that
// chmod sets, groups, uids above 2^31, files nobody can open.
func TestAgainstTheSystemsTools(t *testing.T) {
	for _, tool := range []string{"setfacl", "getfacl"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	file := t.TempDir() + "/f"
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if out, err := exec.Command("setfacl", "-m", "u:4000000000:rwx,u:7:r--,g:99:-wx,m::r-x", file).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	got, err := Get(fd, Access)
	want := []Entry{{Owner, 0, 6}, {User, 7, 4}, {User, 4000000000, 7}, {Group, 0, 4}, {Named, 99, 3}, {Mask, 0, 5}, {Other, 0, 0}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
	if Limit(got) != 5 || Widest(got) != 7 || Limit(FromMode(0o640)) != 7 {
		t.Error("arithmetic of masks")
	}
	if err := os.Chmod(file, 0); err != nil {
		t.Fatal(err)
	}
	p, err := unix.Open(file, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p)
	if got, err = GetHeld(p, Access); err != nil || Limit(got) != 0 {
		t.Errorf("chmod 0 did not close the mask: %v %v", got, err)
	}
	if err := SetHeld(p, Access, append(FromMode(0o750), Entry{User, 12, 5}, Entry{Named, 13, 2})); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("getfacl", "-ncp", file).Output()
	if want := "user::rwx\nuser:12:r-x\ngroup::r-x\ngroup:13:-w-\nmask::rwx\nother::---\n\n"; err != nil || string(out) != want {
		t.Errorf("getfacl says\n%s%v", out, err)
	}
	if err := SetHeld(p, Access, FromMode(0o600)); err != nil {
		t.Fatal(err)
	}
	if got, err = GetHeld(p, Access); err != nil || got != nil {
		t.Errorf("a list without names is kept in the mode: %v %v", got, err)
	}
}

// Whatever a file system hands us is a list we would write the same way, or an
// error.
func FuzzDecode(f *testing.F) {
	good, err := Encode(append(FromMode(0o750), Entry{User, 12, 5}, Entry{Named, 13, 2}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(list)
		if errors.Is(err, ErrTooMany) {
			return
		}
		back, e := Decode(again)
		if err != nil || e != nil || !slices.Equal(list, back) {
			t.Errorf("%v became %v: %v %v", list, back, err, e)
		}
	})
}
