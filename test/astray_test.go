package test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func statUID(info os.FileInfo) int {
	if info == nil {
		return -1
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}

// rounds is how often an attack is tried.
func rounds() int {
	if os.Getenv("QUIRE_SOAK") != "" {
		return 100_000
	}
	return 60
}

// A member exchanges directories for links and links other people's files in
// while the owner's files are being repaired and his are taken over: nothing
// outside changes, ever, also when the project is deleted (F-03, F-07, F-08,
// F-09, F-14).
func TestRepairIsNotLedAstray(t *testing.T) {
	s := Up(t)
	ctx := within(t, 5*time.Hour) // at full count
	ada := s.Admin(ctx, "ada", password)
	s.Person(ctx, ada, "ben", password)
	running(t, ctx, ada, "/ada/Welcome")
	if err := ada.API(ctx, "PUT", "/projects/ada/Welcome/team/ben", map[string]any{"role": "editor"}, nil); err != nil {
		t.Fatal(err)
	}
	onDisk(t, ctx, ada, "/ada/Welcome")
	const dir, outside = "/projects/ada/Welcome", "/projects/outside"
	// The prize: private files of the owner herself, whose helper could change them.
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(outside, ownerUID(t, "ada"), -1); err != nil {
		t.Fatal(err)
	}
	must(t, "ada", "mkdir -m 711 "+outside+"/home && cd "+outside+"/home && mkdir -m 711 d && echo s > d/secret && echo s > linked && chmod 600 d/secret && chmod 644 linked && setfacl -m u:ben:rw- linked")
	before := lists(t, outside+"/home/d/secret") + lists(t, outside+"/home/linked") + lists(t, outside+"/home/d")
	must(t, "ben", "cd "+dir+" && mkdir -p trap/d && echo x > trap/d/secret && ln -s "+outside+"/home/d trap/link && ln -s "+outside+"/home/d/secret trap/d/way")
	if out, err := as("ben", "cd "+dir+" && ln "+outside+"/home/linked trap/hard"); err != nil {
		t.Fatalf("the hard link that the kernel allows: %s", out)
	}
	// A shared file of root's and a program with root's rights, linked in.
	if out, err := exec.Command("bash", "-c", "cd "+outside+" && echo env > env && cp /bin/true suid && chmod 4755 suid && ln env "+dir+"/trap/env && ln suid "+dir+"/trap/suid && mkdir shared && chmod 777 shared && touch shared/x").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	roots := func() string {
		out, err := exec.Command("bash", "-c", "cd "+outside+" && stat -c '%n %u %g %a %s' env suid shared shared/x home home/* home/d/* && sha256sum env suid && getfacl -R env suid shared").CombinedOutput()
		if err != nil {
			t.Fatalf("%s", out)
		}
		return string(out)
	}
	was := roots()
	many := "mkdir -p many/a/b many/c && for i in $(seq 60); do echo $i > many/a/b/$i; echo c$i > many/c/$i; done"
	must(t, "ben", "cd "+dir+" && "+many+" && ln -s "+outside+"/shared many/c/shared")
	must(t, "ada", "mkdir "+dir+"/hers && echo 1 > "+dir+"/hers/f && chmod 600 "+dir+"/hers/f")
	swap := exec.Command("/usr/sbin/runuser", "-u", "ben", "--", "python3", "-c", `
import ctypes, os
libc = ctypes.CDLL(None)
os.chdir("`+dir+`/trap")
print("ready", flush=True)
while True:
    libc.renameat2(-100, b"d", -100, b"link", 2)
    try: # always something of his to take over, where it just was
        open("t", "w").write("v")
        os.rename("t", "d/v")
    except OSError:
        pass
    libc.renameat2(-100, b"d/v", -100, b"d/way", 2)
`)
	pipe, err := swap.StdoutPipe()
	if err == nil {
		err = swap.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { swap.Process.Kill(); swap.Wait() }()
	if b := make([]byte, 5); true {
		if _, err := pipe.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	exec.Command("install", "-m", "755", s.Binary, "/run/quire-helper").Run()
	helper := fmt.Sprintf(`/run/quire-helper helper repair --full --dir %s --owner %d --group 7 --team '{"editors":[%d]}'`, dir, ownerUID(t, "ada"), ownerUID(t, "ben"))
	take := fmt.Sprintf(`/run/quire-helper helper take-over --dir %s --owner %d --group 7 --team '{"editors":[%d]}' --from %d`, dir, ownerUID(t, "ada"), ownerUID(t, "ben"), ownerUID(t, "ben"))
	batch := 20
	for done := 0; done < rounds(); done += batch {
		must(t, "ada", fmt.Sprintf("for i in $(seq %d); do %s >/dev/null || exit 1; done", batch, helper))
		// Ended at any point, too.
		must(t, "ada", fmt.Sprintf("for i in $(seq %d); do timeout -s KILL 0.0$((i %% 7 + 1)) %s >/dev/null 2>&1; done; %s >/dev/null", batch/2, take, take))
	}
	if after := roots(); after != was {
		t.Errorf("it was:\n%s\nand is:\n%s", was, after)
	}
	if after := lists(t, outside+"/home/d/secret") + lists(t, outside+"/home/linked") + lists(t, outside+"/home/d"); after != before {
		t.Errorf("it was:\n%s\nand is:\n%s", before, after)
	}
	wants(t, "hers", dir+"/hers/f", "user:ben:rw-")
	// What was taken over is all there, hers, and nothing lies beside it.
	swap.Process.Kill()
	swap.Wait()
	told := must(t, "ada", take+" && "+take) // what he made while the first was at it is left to the second
	out := must(t, "ada", "cd "+dir+" && for i in $(seq 60); do [ $(cat many/a/b/$i) = $i ] && [ $(cat many/c/$i) = c$i ] || echo $i; done; find . -uid "+fmt.Sprint(ownerUID(t, "ben"))+" ! -type l; find . -name '.quire-take-over*'; find many -type f | wc -l; readlink many/c/shared")
	if out != "120\n"+outside+"/shared" {
		t.Errorf("after the take-over: %s\nit said %s", out, told)
	}
	if out, err := exec.Command("/run/quire-helper", strings.Fields("helper repair --dir "+dir+" --owner 1")...).CombinedOutput(); err == nil || !strings.Contains(string(out), "Root repairs nothing") {
		t.Errorf("root repairs: %v %s", err, out)
	}
	// Deleted while he moves things about: what is linked in loses a name at most.
	again := exec.Command("/usr/sbin/runuser", "-u", "ben", "--", "python3", "-c", `
import ctypes
libc = ctypes.CDLL(None)
while True:
    libc.renameat2(-100, b"`+dir+`/many/a", -100, b"`+dir+`/many/c", 2)
`)
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { again.Process.Kill(); again.Wait() }()
	if err := ada.API(ctx, "DELETE", "/projects/ada/Welcome?confirm=Welcome", nil, nil); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, "it is aside", func() error { _, err := os.Stat(dir); return notThere(err) })
	aside, err := os.ReadDir("/projects/ada")
	if err != nil || len(aside) != 1 {
		t.Fatalf("%v %v", aside, err)
	}
	must(t, "ada", "/run/quire-helper helper purge --dir /projects/ada/"+aside[0].Name())
	if after := roots(); after != was {
		t.Errorf("after the deletion it was:\n%s\nand is:\n%s", was, after)
	}
}

func notThere(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return fmt.Errorf("it is there: %w", err)
}
