package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"quire"
	"quire/store"
)

// Several processes of the server may share one database: they must be of one
// installation, and know what only one of them has seen.

const (
	settingKey       = "order_key" // fingerprint of the key that signs orders and grants
	settingAddresses = "addresses" // where the server that was started last says portal and apps are
)

// introduce makes sure that this process belongs to the installation whose
// database it has, and says under which addresses it serves pages.
func (c *core) introduce(ctx context.Context) error {
	mine := hash(string(c.Signer.Public()))
	return c.write(ctx, quireItself, func(tx *txn) error {
		key, err := tx.Setting(settingKey)
		switch {
		case err != nil:
			return err
		case key == "":
			if err := tx.SetSetting(settingKey, mine); err != nil {
				return err
			}
		case key != mine:
			return quire.Conflict("", "The database belongs to an installation with other keys than this machine has. Bring them from its server with \"quire server keys\", as docs/admin/machines.md says under \"A second server\".")
		}
		others, err := c.otherAddresses(tx.Tx)
		if err != nil || !others || c.Worker {
			return err
		}
		tx.wake(wakeAll, "") // gateways go by us from now on
		return tx.SetSetting(settingAddresses, c.addresses())
	})
}

func (c *core) addresses() string { return c.Origins.Portal() + " " + c.AppsDefault }

// otherAddresses reports whether a server with other addresses was started later.
// If two told gateways what each believes, gateways would go back and forth.
func (c *core) otherAddresses(tx *store.Tx) (bool, error) {
	last, err := tx.Setting(settingAddresses)
	return last != c.addresses(), err
}

// Wrong passwords count for all processes alike: each tells the others of its
// tries. A word that is lost is one try more for whoever guesses.

const wakeTries = "tries" // an account and a source, failed or passed

// tried is what the throttle knows a try by. The name may be a password that was
// typed into the wrong field: it is told to nobody.
func tried(name string) string {
	sum := sha256.Sum256([]byte(strings.ToLower(name)))
	return hex.EncodeToString(sum[:16])
}

// tellTry notes the end of a try for the other processes.
func (t *txn) tellTry(account, source string, passed bool) {
	how := "failed"
	if passed {
		how = "passed"
	}
	t.Say(wake{wakeTries, how + " " + account + " " + source}.String())
}

func (c *core) triesOf(word string) {
	how, rest, _ := strings.Cut(word, " ")
	if account, source, ok := strings.Cut(rest, " "); ok {
		c.throttle.Heard(account, source, how == "passed")
	}
}
