package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"quire"
)

var update = flag.Bool("update", false, "record the messages of the protocol as they are now")

// One release and the one before it work together; others are told in a sentence
// what to upgrade, on both sides.
func TestNeighboursUnderstandEachOther(t *testing.T) {
	for _, c := range []struct {
		server, node int
		say          string // "" when they work together
	}{
		{2, 2, ""}, {2, 3, ""}, {3, 2, ""}, {2, 1, ""}, {1, 2, ""},
		{2, 4, "Upgrade the server."}, {4, 2, "Upgrade the compute."}, {5, 2, "Upgrade the compute."},
	} {
		t.Run(fmt.Sprintf("server %d, node and gateway %d", c.server, c.node), func(t *testing.T) {
			s := newSite(t, "site")
			server, node, gateway := s.identity(RoleServer, "n_server"), s.identity(RoleCompute, "n_one"), s.identity(RoleGateway, "n_gate")
			server.Speaks = Speaks{c.server, fmt.Sprintf("%d.0", c.server)}
			node.Speaks = Speaks{c.node, fmt.Sprintf("%d.0", c.node)}
			gateway.Speaks = node.Speaks
			f := &fakeNode{}
			addr := serveTLS(t, node, NodeHandler(f, f, quietTest()), RoleServer, RoleGateway)
			down := make(chan quire.Feed)
			close(down)
			m := NewMachine(server, "n_one", dialer(addr))
			_, health := m.Health(t.Context())
			watch := m.Watch(t.Context(), down, func(quire.NodeReport) {})
			_, order := m.Do(t.Context(), []byte("order"))
			attach := NewGateway(server, "n_gate", serveTLS(t, gateway, GatewayHandler(&fakeGateway{}, nil, quietTest()), RoleServer)).Attach(t.Context(), nothing(), func(quire.GatewayReport) {})
			for what, err := range map[string]error{"health": health, "watch": watch, "order": order, "attach": attach} {
				want := c.say
				if what == "attach" {
					want = strings.Replace(want, "compute", "gateway", 1)
				}
				switch {
				case c.say == "" && err != nil:
					t.Errorf("%s: %v", what, err)
				case c.say != "" && (err == nil || !strings.HasSuffix(quire.AsError(err).Message, want) || !strings.Contains(err.Error(), "version 2.0")):
					t.Errorf("%s: %v, want … %s", what, err, want)
				}
			}
			if c.say != "" && (len(f.orders) > 0 || len(f.feeds) > 0) {
				t.Error("something was done all the same")
			}
		})
	}
}

func nothing() chan quire.GatewayFeed {
	c := make(chan quire.GatewayFeed)
	close(c)
	return c
}

// What a peer says of itself is shown to people.
func TestVersionsAreNotBelieved(t *testing.T) {
	id := &Identity{Role: RoleServer, Speaks: Speaks{2, "2.0"}}
	err := id.understand(RoleGateway, http.Header{headerProtocol: {"9"}, headerVersion: {"<b>\n" + strings.Repeat("x", 100)}})
	if err == nil || strings.ContainsAny(err.Error(), "<\n") || !strings.Contains(err.Error(), "an unknown version") {
		t.Error(err)
	}
	if err := id.understand(RoleGateway, http.Header{headerProtocol: {"two"}}); quire.KindOf(err) != quire.KindInvalid {
		t.Error(err)
	}
	if err := id.understand(RoleGateway, http.Header{}); err != nil { // the time before numbers
		t.Error(err)
	}
}

// messages are what crosses the network as JSON.
func messages() map[string]any {
	return map[string]any{
		"feed": &quire.Feed{}, "node-report": &quire.NodeReport{}, "gateway-feed": &quire.GatewayFeed{}, "gateway-report": &quire.GatewayReport{},
		"receipt": &quire.Receipt{}, "health": &quire.NodeHealth{}, "error": &quire.Error{},
		"join-request": &quire.JoinRequest{}, "join-answer": &quire.JoinAnswer{},
		"args-clone": &quire.CloneArgs{}, "args-account": &quire.AccountArgs{}, "args-team": &quire.TeamArgs{}, "args-repair": &quire.RepairArgs{},
		"args-take-over": &quire.TakeOverArgs{}, "args-why": &quire.WhyArgs{}, "args-start": &quire.StartArgs{}, "args-stop": &quire.StopArgs{},
	}
}

// What the release before says is read as it was meant: every recorded word is
// still known, and means the same when it is said again. A word that is new need
// not be recorded; one that is taken away or changed needs a new Protocol, and
// waits until nobody can say it any more. -update records the current protocol.
func TestMessagesOfTheReleaseBefore(t *testing.T) {
	if *update {
		for name, m := range messages() {
			fill(reflect.ValueOf(m).Elem(), name)
			b, err := json.MarshalIndent(m, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(recorded(Protocol), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(recorded(Protocol), name+".json"), append(b, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := 0
	for _, protocol := range []int{Protocol - 1, Protocol} {
		for name, m := range messages() {
			b, err := os.ReadFile(filepath.Join(recorded(protocol), name+".json"))
			if errors.Is(err, os.ErrNotExist) && protocol < Protocol {
				continue // it was said in the same words, or not at all
			}
			if err != nil {
				t.Errorf("%v: record the messages with -update", err)
				continue
			}
			read++
			d := json.NewDecoder(bytes.NewReader(b))
			d.DisallowUnknownFields()
			if err := d.Decode(m); err != nil {
				t.Errorf("%s of protocol %d cannot be read any more: %v", name, protocol, err)
				continue
			}
			again, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var was, is any
			if err := errors.Join(json.Unmarshal(b, &was), json.Unmarshal(again, &is)); err != nil {
				t.Fatal(err)
			}
			for _, lost := range lacks(was, is, name) {
				t.Errorf("protocol %d says %s, and it is lost", protocol, lost)
			}
		}
	}
	if read < len(messages()) {
		t.Errorf("%d messages were read", read)
	}
	// The test can fail.
	var f quire.Feed
	d := json.NewDecoder(strings.NewReader(`{"seq":1,"sequence":2}`))
	d.DisallowUnknownFields()
	if d.Decode(&f) == nil || len(lacks(map[string]any{"a": 1.0}, map[string]any{"a": 2.0}, "")) != 1 || len(lacks([]any{1.0}, []any{}, "")) != 1 {
		t.Error("a changed message goes unnoticed")
	}
}

func recorded(protocol int) string {
	return filepath.Join("testdata", fmt.Sprintf("protocol-%d", protocol))
}

// lacks names what is in was and not, or otherwise, in is.
func lacks(was, is any, at string) (lost []string) {
	switch was := was.(type) {
	case map[string]any:
		is, _ := is.(map[string]any)
		for k, v := range was {
			lost = append(lost, lacks(v, is[k], at+"."+k)...)
		}
	case []any:
		is, _ := is.([]any)
		for i, v := range was {
			var other any
			if i < len(is) {
				other = is[i]
			}
			lost = append(lost, lacks(v, other, fmt.Sprintf("%s[%d]", at, i))...)
		}
	default:
		if !reflect.DeepEqual(was, is) {
			lost = append(lost, fmt.Sprintf("%s = %v (%v)", at, was, is))
		}
	}
	return lost
}

// fill gives every field a value that is not its zero.
func fill(v reflect.Value, name string) {
	if _, ok := v.Interface().(time.Time); ok {
		v.Set(reflect.ValueOf(time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(len(name)%7 + 1))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(len(name)%7 + 1))
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.String:
		v.SetString(strings.ToLower(name))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), name)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), name)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, "key")
		fill(value, name)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" {
				fill(v.Field(i), f.Name)
			}
		}
	}
}

// A link says more than its other end knows: that is ignored.
func TestUnknownWordsOfAFeed(t *testing.T) {
	var f quire.GatewayFeed
	if err := json.Unmarshal([]byte(`{"seq":3,"weather":{"rain":true},"routes":[{"label":"l","mood":1}]}`), &f); err != nil || f.Seq != 3 || f.Routes[0].Label != "l" {
		t.Errorf("%v %+v", err, f)
	}
}
