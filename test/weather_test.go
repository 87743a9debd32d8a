package test

import (
	"errors"
	"testing"
	"time"
)

// A data center far away, by wires that lose and delay what they carry.
//
//fault:network a wire is slow and loses one packet in twenty-five
//fault:seen everything takes longer, and works: joining, starting, cells, being shut out
//fault:lost nothing
//fault:network a wire loses every second packet
//fault:seen the data center or node counts as away now and then; apps hang
//fault:lost nothing: kernels go on
//fault:repair all agrees again when the wire is good
func TestBadWires(t *testing.T) {
	f := NewFleet(t, "front", "north")
	ctx := within(t, 5*time.Minute)
	server := f.Host("server", map[string]string{"front": "10.77.0.1"})
	gateway := f.Host("gateway", map[string]string{"front": "10.77.0.2", "north": "10.77.1.1"})
	node := f.Host("node", map[string]string{"north": "10.77.1.11"})
	f.Names = map[string]string{"quire.site.test": "10.77.0.1", ".north.site.test": "10.77.0.2"}
	far, near := gateway.Weather("front"), node.Weather("north")
	far.Set(40, 50*time.Millisecond)
	near.Set(40, 5*time.Millisecond)

	server.Write("/etc/quire/quire.conf", `{"roles": ["server"], "portal": "http://quire.site.test", "listen": {"portal": ":80"}}`)
	gateway.Write("/etc/quire/quire.conf", `{"roles": ["gateway"]}`)
	gateway.Write("/etc/hosts", "127.0.0.1 localhost\n10.77.0.1 quire.site.test\n")
	node.Write("/etc/quire/quire.conf", `{"roles": ["compute"], "session": {"limits": false}}`)
	server.Up("is up after")
	ada := f.Admin(ctx, server, "ada", password)
	gateway.Up("has not joined")
	gateway.joins(f.token(ctx, ada, map[string]any{"role": "gateway", "name": "north"}), "gateway", "join", "--server", "http://quire.site.test", "--apps", "http://*.north.site.test:8089")
	f.up(ctx, ada, "data-centers", "north", true)
	node.Up("has not joined")
	node.joins(f.token(ctx, ada, map[string]any{"role": "compute", "data_center": f.list(ctx, ada, "data-centers")["north"].ID, "name": "node"}), "compute", "join", "--gateway", "http://10.77.1.1:8089")
	f.up(ctx, ada, "nodes", "node", true)
	if err := ada.API(ctx, "POST", "/projects", map[string]any{"name": "Far"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := ada.API(ctx, "POST", "/projects/ada/Far/start", nil, nil); err != nil {
		t.Fatal(err)
	}
	running(t, ctx, ada, "/ada/Far")
	n, err := ada.OpenNotebook(ctx, "/ada/Far")
	if err != nil {
		t.Fatal(err)
	}
	kernel, out := cell(ctx, t, n, "treasure = 'gold'; 6*7")
	if out != "42" {
		t.Errorf("6*7 = %s", out)
	}
	// More than a few packets at once, both ways.
	if _, out := cell(ctx, t, n, "import os; len(os.urandom(1 << 20).hex()), print('x' * 1_000_000)"); len(out) < 1_000_000 {
		t.Errorf("%d bytes came", len(out))
	}

	far.Set(500, 50*time.Millisecond)
	near.Set(500, 5*time.Millisecond)
	// The silence is longer than a link's patience sooner or later.
	Eventually(t, time.Minute, "somebody is away", func() error {
		if f.list(ctx, ada, "data-centers")["north"].Up && f.list(ctx, ada, "nodes")["node"].Up {
			return errors.New("all are up")
		}
		return nil
	})
	far.Set(0, 0)
	near.Set(0, 0)
	f.up(ctx, ada, "data-centers", "north", true)
	f.up(ctx, ada, "nodes", "node", true)
	still(ctx, t, n, kernel, "treasure", "'gold'")
	if far.Lost() < 20 || near.Lost() < 20 {
		t.Errorf("the wires lost %d and %d packets only", far.Lost(), near.Lost())
	}
	// Whoever is shut out is, also there.
	if err := ada.API(ctx, "POST", "/projects/ada/Far/stop", nil, nil); err != nil {
		t.Fatal(err)
	}
}
