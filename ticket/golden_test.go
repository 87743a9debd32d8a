package ticket

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"quire"
)

var update = flag.Bool("update", false, "record what is signed as it is now")

// What is signed is read by machines of the release before and after, and has no
// room for anything new: the bytes stay as they are, or get another version.
func TestSignedBytesStayAsTheyAre(t *testing.T) {
	s := signer(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	v, err := NewVerifier(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC)
	order := quire.Order{
		Type: quire.OrderStart, ID: "o_1", Node: "n_1", User: "u_1", Account: "ada", UID: 20000, Project: "p_1", Dir: "/projects/ada/Welcome",
		Session: "s_1", App: "notebook", Args: []byte(`{"label":"l"}`), Issued: at, Expires: at.Add(time.Minute),
	}
	grant := Grant{
		User: "u_1", Project: "p_1", Login: "l_1", Label: "abc", Role: quire.RoleEditor, Feed: 9, Node: "n_1", Gateway: "n_2",
		Issued: at, Expires: at.Add(5 * time.Minute), Grace: at.Add(time.Hour),
	}
	pass := Ticket{ID: "o_2", Nonce: sha256.Sum256([]byte("nonce")), Gateway: "n_2", Label: "abc", Grant: s.Grant(grant), Issued: at, Expires: at.Add(time.Minute)}
	for name, is := range map[string][]byte{"order": s.Order(order), "grant": s.Grant(grant), "ticket": s.Ticket(pass)} {
		file := "testdata/" + name + ".hex"
		if *update {
			if err := os.WriteFile(file, []byte(hex.EncodeToString(is)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		was, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(was, is) {
			t.Errorf("the %s is written otherwise than the release before writes it", name)
		}
		switch name {
		case "order":
			got, err := v.Order(was, "n_1", at)
			if err != nil || !reflect.DeepEqual(got, order) {
				t.Errorf("the order is read as %+v, %v", got, err)
			}
		case "grant":
			got, err := v.Grant(was)
			if err != nil || !reflect.DeepEqual(got, grant) {
				t.Errorf("the grant is read as %+v, %v", got, err)
			}
		case "ticket":
			got, err := v.Ticket(was, "n_2", "abc", "nonce", at)
			if err != nil || !reflect.DeepEqual(got, pass) {
				t.Errorf("the ticket is read as %+v, %v", got, err)
			}
		}
	}
}
