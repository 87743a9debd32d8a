package lab

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestSnapshotsThinOutWithTime(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	var list []snapshot
	for at := now.Add(-60 * 24 * time.Hour); !at.After(now); at = at.Add(10 * time.Minute) {
		list = append(list, snapshot{ID: at.Format(time.RFC3339), At: at, size: 1})
	}
	gone := map[string]bool{}
	for _, sn := range surplus(list, now) {
		gone[sn.ID] = true
	}
	hours, days, newest := map[string]bool{}, map[string]bool{}, 0
	for i, sn := range list {
		age := now.Sub(sn.At)
		switch {
		case i >= len(list)-shelfNewest:
			newest++
			if gone[sn.ID] {
				t.Errorf("%s is one of the newest", sn.ID)
			}
		case gone[sn.ID]:
		case age < shelfHours:
			hours[sn.At.Format("0215")] = true
		case age <= shelfLife:
			days[sn.At.Format("0102")] = true
		default:
			t.Errorf("%s is too old", sn.ID)
		}
	}
	if kept := len(list) - len(gone); newest != 10 || len(hours) < 21 || len(days) < 29 || kept > 10+25+31 {
		t.Errorf("%d newest, %d hours, %d days, %d in all", newest, len(hours), len(days), kept)
	}
	// Room is a bound of its own, but for what was and what is.
	for i := range list[:20] {
		list[i] = snapshot{ID: fmt.Sprint(i), At: now.Add(time.Duration(i) * time.Second), size: shelfBytes / 3}
	}
	if left := 20 - len(surplus(list[:20], now.Add(time.Minute))); left != 3 {
		t.Errorf("%d are kept", left)
	}
	list[18].size, list[19].size = shelfBytes, shelfBytes
	if left := 20 - len(surplus(list[:20], now.Add(time.Minute))); left != 2 {
		t.Errorf("%d large ones are kept", left)
	}
}

func (c *client) snapshots(name string) []object {
	c.t.Helper()
	_, b := c.do("GET", "api/contents/"+name+"/checkpoints", nil)
	var list []object
	if err := json.Unmarshal(b, &list); err != nil {
		c.t.Fatalf("%s: %v", b, err)
	}
	return list
}

func TestSnapshotsFollowTheirFile(t *testing.T) {
	c := newClient(t)
	os.Mkdir(c.project+"/dir", 0o755)
	text := func(s string) object { return object{"type": "file", "format": "text", "content": s} }
	c.ask(201, "PUT", "api/contents/a.txt", text("one"))
	c.ask(200, "PUT", "api/contents/a.txt", text("two"))
	c.ask(200, "PUT", "api/contents/a.txt", text("two"))
	if list := c.snapshots("a.txt"); len(list) != 2 {
		t.Fatalf("%v", list)
	}
	if m := c.ask(200, "GET", "api/contents/a.txt/checkpoints/"+c.snapshots("a.txt")[0]["id"].(string), nil); m["content"] != "one" || m["writable"] != false {
		t.Errorf("%v", m)
	}
	c.ask(200, "PATCH", "api/contents/a.txt", object{"path": "dir/b.txt"})
	if list := c.snapshots("dir/b.txt"); len(list) != 2 {
		t.Fatalf("%v", list)
	}
	c.ask(204, "DELETE", "api/contents/dir/b.txt", nil)
	if left, _ := filepath.Glob(c.project + "/dir/.ipynb_checkpoints/quire/*"); len(left) != 0 {
		t.Errorf("%v", left)
	}
	c.write("x", "")
	c.ask(405, "DELETE", "api/contents/x/checkpoints", nil)
}

// Where the directory cannot have them, they are in the person's home.
func TestSnapshotsHaveASecondPlace(t *testing.T) {
	c := newClient(t)
	c.write(".ipynb_checkpoints", "a file of that name")
	text := func(s string) object { return object{"type": "file", "format": "text", "content": s} }
	c.write("a.txt", "of another program")
	c.ask(200, "PUT", "api/contents/a.txt", text("mine"))
	list := c.snapshots("a.txt")
	if len(list) != 2 {
		t.Fatalf("%v", list)
	}
	c.ask(204, "POST", "api/contents/a.txt/checkpoints/"+list[0]["id"].(string), nil)
	if c.read("a.txt") != "of another program" {
		t.Error(c.read("a.txt"))
	}
	c.ask(200, "PATCH", "api/contents/a.txt", object{"path": "b.txt"})
	if len(c.snapshots("b.txt")) != 2 {
		t.Error("they did not follow")
	}
	// With no place at all nothing is overwritten unseen.
	c.write("b.txt", "of another program again")
	os.RemoveAll(personal(c.home) + "/snapshots")
	os.WriteFile(personal(c.home)+"/snapshots", nil, 0o600)
	if out := c.ask(422, "PUT", "api/contents/b.txt", text("mine")); !strings.Contains(out["message"].(string), "nothing was overwritten") {
		t.Errorf("%v", out)
	}
	m := c.ask(200, "GET", "api/contents/b.txt", nil)
	fresh := text("seen and replaced")
	fresh["quire"] = m["quire"]
	c.ask(200, "PUT", "api/contents/b.txt", fresh)
}

// What only some may read, they alone may read as it was, too.
func TestSnapshotsHaveTheRightsOfTheirFile(t *testing.T) {
	c := newClient(t)
	for mode, name := range map[os.FileMode]string{0o600: "private.txt", 0o640: "team.txt", 0o644: "open.txt"} {
		c.write(name, "secret")
		if err := os.Chmod(c.project+"/"+name, mode); err != nil {
			t.Fatal(err)
		}
		c.ask(200, "PUT", "api/contents/"+name, object{"type": "file", "format": "text", "content": "another"})
		kept, _ := filepath.Glob(c.project + "/.ipynb_checkpoints/quire/" + name + "/*")
		if len(kept) != 2 {
			t.Fatalf("%v", kept)
		}
		for _, k := range kept {
			if info, err := os.Stat(k); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v %v, want %v", name, info.Mode(), err, mode)
			}
		}
	}
}

// Another member may put anything into the directory of snapshots.
func TestForgedSnapshotsAreRefused(t *testing.T) {
	c := newClient(t)
	c.ask(201, "PUT", "api/contents/n.txt", object{"type": "file", "format": "text", "content": "mine"})
	dir := c.project + "/.ipynb_checkpoints/quire/n.txt/"
	digest := strings.Repeat("0", 32)
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range maxSnapshot>>20 + 1 {
		z.Write(zeros)
	}
	z.Close()
	forged := map[string][]byte{"20260101-000000000-" + digest: []byte("no gzip"), "20260101-000000001-" + digest: bomb.Bytes()}
	for id, b := range forged {
		if err := os.WriteFile(dir+id+".gz", b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	os.WriteFile(dir+"20269999-000000000-"+digest+".gz", nil, 0o644)
	os.WriteFile(dir+"noise", nil, 0o644)
	os.Symlink("/etc/passwd", dir+"20260101-000000002-"+digest+".gz")
	if list := c.snapshots("n.txt"); len(list) != 3 {
		t.Errorf("%v", list)
	}
	for id := range forged {
		for _, method := range []string{"GET", "POST"} {
			if out := c.ask(422, method, "api/contents/n.txt/checkpoints/"+id, nil); !strings.Contains(out["message"].(string), "damaged") {
				t.Errorf("%v", out)
			}
		}
	}
	if c.read("n.txt") != "mine" {
		t.Error("restored from a forgery")
	}
}

func TestTrustIsOfOneContentAndOnePerson(t *testing.T) {
	c := newClient(t)
	html := func(text string) object {
		return book(code("a", "x", object{"output_type": "display_data", "metadata": object{}, "data": object{"text/html": text}}))
	}
	trusted := func() bool {
		m := c.ask(200, "GET", "api/contents/n.ipynb", nil)
		return m["content"].(object)["cells"].([]any)[0].(object)["metadata"].(object)["trusted"] == true
	}
	c.write("n.ipynb", string((&notebook{html("<b>")}).bytes()))
	if trusted() {
		t.Error("a notebook of somebody is trusted")
	}
	c.ask(201, "POST", "api/contents/n.ipynb/trust", nil)
	if !trusted() {
		t.Error("not trusted after all")
	}
	// Another layout of the same is the same; another byte of content is not.
	b, err := json.Marshal(html("<b>"))
	if err != nil {
		t.Fatal(err)
	}
	c.write("n.ipynb", string(b))
	if !trusted() {
		t.Error("the same notebook is not trusted")
	}
	c.write("n.ipynb", string((&notebook{html("<i>")}).bytes()))
	if trusted() {
		t.Error("a changed notebook is trusted")
	}
	// What the page ran itself it may show again, what it did not is marked.
	ran := html("<u>")
	ran["cells"].([]any)[0].(object)["metadata"] = object{"trusted": true}
	c.ask(200, "PUT", "api/contents/n.ipynb", save(ran))
	if !trusted() || strings.Contains(c.read("n.ipynb"), "trusted") {
		t.Error("what the page ran is not trusted, or the mark is in the file")
	}
	c.ask(200, "PUT", "api/contents/n.ipynb", save(html("<s>")))
	if trusted() {
		t.Error("what the page does not trust is trusted")
	}
	// Another process of the same person knows it, another person does not.
	again := &trust{file: c.server.trust.file}
	nb := &notebook{html("<b>")}
	if !again.knows(nb) || (&trust{file: t.TempDir() + "/none"}).knows(nb) {
		t.Error("trust is not the person's")
	}
	if info, err := os.Stat(c.server.trust.file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}
