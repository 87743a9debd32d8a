package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"quire"
	"quire/store"
)

// Account is a Linux account.
type Account = quire.Person

// Accounts is as which Linux account a person's processes run. There are three
// kinds; which one is chosen once, where the program starts.
type Accounts interface {
	// Shared reports that everybody's processes run as one account, which
	// protects nobody from anybody.
	Shared() bool

	// of is the person's account as it is written down, or as it is to be.
	of(tx *txn, user quire.User) (Account, error)
	// order is what to tell a node before the account is used; nil for nothing.
	order() *quire.AccountArgs
}

// OneAccount runs everything as one account.
func OneAccount(name string, uid uint32) Accounts { return one{Account{Name: name, UID: uid}} }

type one struct{ account Account }

func (o one) Shared() bool                         { return true }
func (o one) of(*txn, quire.User) (Account, error) { return o.account, nil }
func (o one) order() *quire.AccountArgs            { return nil }

// MadeAccounts gives every person an account that Quire makes, with a number
// from the range: at first need, for good, and never to anybody else.
func MadeAccounts(from, to uint32) Accounts { return made{from, to} }

type made struct{ from, to uint32 }

func (made) Shared() bool              { return false }
func (made) order() *quire.AccountArgs { return &quire.AccountArgs{Make: true} }

func (m made) of(tx *txn, user quire.User) (Account, error) {
	a, err := tx.Account(user.ID)
	if quire.KindOf(err) != quire.KindNotFound {
		return a, err
	}
	last, err := tx.LastUID(m.from, m.to)
	if err != nil {
		return a, err
	}
	a = Account{UID: max(last+1, m.from)}
	if a.UID > m.to {
		return a, quire.Failed(fmt.Sprintf("All numbers for accounts from %d to %d are given away. An administrator must widen uid_range.", m.from, m.to), nil)
	}
	if a.Name, err = freeName(tx, user.Name); err != nil {
		return a, err
	}
	return a, tx.AddAccount(user.ID, a)
}

// freeName is the person's name as an account's. One of digits only gets a
// letter: programs take such a name for a number. Somebody's who is gone stays
// his.
func freeName(tx *txn, name string) (string, error) {
	if strings.Trim(name, "0123456789") == "" {
		name = "u" + name
		name = name[:min(len(name), 32)]
	}
	for n := 2; ; n++ {
		taken, err := tx.AccountNamed(name)
		if err != nil || !taken {
			return name, err
		}
		end := fmt.Sprintf("-%d", n)
		name = strings.TrimSuffix(name, fmt.Sprintf("-%d", n-1))
		name = name[:min(len(name), 32-len(end))] + end
	}
}

// FoundAccounts uses the accounts that the site provides: a person's is the one
// of his name. Which number it has is learned at first use and fixed then.
func FoundAccounts() Accounts { return found{} }

type found struct{}

func (found) Shared() bool              { return false }
func (found) order() *quire.AccountArgs { return &quire.AccountArgs{} }

func (found) of(tx *txn, user quire.User) (Account, error) {
	a, err := tx.Account(user.ID)
	if quire.KindOf(err) == quire.KindNotFound {
		return Account{Name: user.Name}, nil // number not known yet
	}
	return a, err
}

// account is as whom a person's processes run on the project's node. The account
// is there when it returns.
func (r *reconciler) account(ctx context.Context, p quire.Project, user quire.UserID) (Account, quire.Receipt, error) {
	a, err := r.known(ctx, user)
	if err == nil && a.UID == 0 {
		err = r.c.write(ctx, quireItself, func(tx *txn) error {
			u, err := tx.User(user)
			if err != nil {
				return err
			}
			a, err = r.c.Accounts.of(tx, u)
			return err
		})
	}
	args := r.c.Accounts.order()
	if err != nil || args == nil {
		return a, quire.Receipt{Already: true, Note: "one for everybody"}, err
	}
	key := accountKey{p.Node, user}
	r.mu.Lock()
	known := r.accounts[key]
	r.mu.Unlock()
	if known && a.UID != 0 {
		return a, quire.Receipt{Already: true, Note: a.Name + " is there"}, nil
	}
	m, err := r.machine(p.Node)
	if err != nil {
		return a, quire.Receipt{}, err
	}
	rec, err := m.Do(ctx, r.c.orderAs(quire.OrderAccount, p, user, a, nil, args))
	if err != nil {
		return a, rec, err
	}
	if a.UID == 0 {
		if err := r.pin(ctx, user, Account{Name: a.Name, UID: rec.UID}); err != nil {
			return a, rec, err
		}
		a.UID = rec.UID
	}
	r.mu.Lock()
	r.accounts[key] = true
	r.mu.Unlock()
	return a, rec, nil
}

type accountKey struct {
	node quire.NodeID
	user quire.UserID
}

// pin fixes the number of an account that the site provides. From now on access
// lists can name its person.
func (r *reconciler) pin(ctx context.Context, user quire.UserID, a Account) error {
	if a.UID == 0 {
		return quire.Failed("The node did not say which number the account "+a.Name+" has.", nil)
	}
	return r.c.write(ctx, quireItself, func(tx *txn) error {
		have, err := tx.Account(user)
		if err == nil && have == a {
			return nil
		}
		if err == nil || quire.KindOf(err) != quire.KindNotFound {
			return quire.Conflict("", "The account "+a.Name+" changed while it was looked up. Try again.")
		}
		if err := tx.AddAccount(user, a); quire.KindOf(err) == quire.KindConflict {
			return quire.Conflict("", fmt.Sprintf("The account %s has number %d, which is another person's here. An administrator must look at this.", a.Name, a.UID))
		} else if err != nil {
			return err
		}
		return r.c.teamsOf(tx, user)
	})
}

// teamsOf has the directories of a person's projects follow.
func (c *core) teamsOf(tx *txn, user quire.UserID) error {
	for _, owned := range []bool{true, false} {
		ps, err := tx.ProjectsOf(user, owned)
		if err != nil {
			return err
		}
		for _, p := range ps {
			if err := c.teamChanged(tx, p.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetAccounts makes a node say again which accounts it has.
func (r *reconciler) forgetAccounts(node quire.NodeID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.accounts {
		if k.node == node {
			delete(r.accounts, k)
		}
	}
}

// people are a team on disk: who is in it by account, and who could not be named.
type people struct {
	owner   Account
	team    quire.TeamArgs
	as      []Account // everybody whose account is known, the owner first
	unknown []string  // names without an account on the node
	behind  store.TeamOnDisk
	lowered []store.Lowered
	project quire.Project
	newest  int64 // revocation among lowered
	unswept bool
	uncut   bool
	shut    bool // the owner may not sign in
}

// people reads the team and finds everybody's account.
func (r *reconciler) people(ctx context.Context, id quire.ProjectID) (t people, err error) {
	var members []quire.Member
	if err = r.c.read(ctx, func(tx *store.Tx) error {
		if t.project, err = tx.Project("", id); err != nil {
			return err
		}
		if t.behind, err = tx.TeamOnDisk(id); err != nil {
			return err
		}
		if t.lowered, err = tx.Lowered(id); err != nil {
			return err
		}
		members, err = tx.Members(id)
		return err
	}); err != nil {
		return t, err
	}
	t.team.Public = t.project.Public
	if t.owner, _, err = r.account(ctx, t.project, t.project.Owner); err != nil {
		return t, err
	}
	t.as = append(t.as, t.owner)
	slices.SortStableFunc(t.lowered, func(a, b store.Lowered) int { return min(len(b.Report), 1) - min(len(a.Report), 1) })
	denied := map[quire.UserID]bool{}
	for _, l := range t.lowered {
		t.newest = max(t.newest, l.Rev.Seq)
		t.unswept, t.uncut = t.unswept || !l.Swept, t.uncut || !l.Cut
		if l.Role == quire.RoleNone && len(t.team.Denied)+len(members) >= quire.MaxTeam {
			continue // whom no file names, and the oldest that are gone, make room
		}
		a, err := r.known(ctx, l.User)
		if err != nil {
			return t, err
		}
		if l.Role != quire.RoleNone && l.Swept && !l.Disabled && left(l.Report, a.UID).holds == 0 {
			continue // a viewer now
		}
		if a.UID == 0 {
			continue // he never had an account: nothing names him
		}
		if a.UID == t.owner.UID { // the kernel denies an owner nothing for good
			if l.Disabled && !l.Cut {
				t.team.Expel = append(t.team.Expel, a.UID)
			}
			t.shut = l.Disabled
			continue
		}
		denied[l.User] = true
		t.team.Denied = append(t.team.Denied, a.UID)
		if !l.Cut {
			t.team.Expel = append(t.team.Expel, a.UID)
		}
	}
	for _, m := range members {
		if m.User == t.project.Owner {
			continue
		}
		a, _, err := r.account(ctx, t.project, m.User)
		if quire.KindOf(err) == quire.KindUnavailable || ctx.Err() != nil {
			return t, err
		}
		if err != nil {
			r.c.Log.Warn("a member has no account on the node", "project", id, "user", m.User, "err", err)
			t.unknown = append(t.unknown, m.Name)
			continue
		}
		t.as = append(t.as, a)
		switch {
		case denied[m.User]:
		case m.Role.AtLeast(quire.RoleEditor):
			t.team.Editors = append(t.team.Editors, a.UID)
		default:
			t.team.Viewers = append(t.team.Viewers, a.UID)
		}
	}
	return t, nil
}

// known is a person's account if one is written down.
func (r *reconciler) known(ctx context.Context, user quire.UserID) (a Account, err error) {
	if r.c.Accounts.Shared() {
		return r.c.Accounts.of(nil, quire.User{})
	}
	err = r.c.read(ctx, func(tx *store.Tx) error { a, err = tx.Account(user); return err })
	if quire.KindOf(err) == quire.KindNotFound {
		return Account{}, nil
	}
	return a, err
}

func (t people) note() string {
	var said []string
	if t.shut {
		said = append(said, "The owner, "+t.project.OwnerName+", is disabled, but the directory is still his account's. Hand the project over.")
	}
	if len(t.unknown) > 0 {
		said = append(said, "Without an account on the node, and so without files here: "+strings.Join(t.unknown, ", ")+".")
	}
	return strings.Join(said, " ")
}

// teamChanged has the project's directory follow its team, now or after a crash.
func (c *core) teamChanged(tx *txn, id quire.ProjectID) error {
	tx.touch(id)
	tx.wake(wakeTeam, string(id))
	return tx.TeamChanged(id)
}

// team makes the project's top directory say what the team is.
func (r *reconciler) team(id quire.ProjectID) {
	r.once("team "+string(id), func(ctx context.Context) {
		wait := retryFirst / 4
		for ctx.Err() == nil && r.settleTeam(ctx, id) {
			pause(ctx, wait)
			wait = min(2*wait, retryMost)
		}
	})
}

// settleTeam reports whether it must be tried again.
func (r *reconciler) settleTeam(ctx context.Context, id quire.ProjectID) (again bool) {
	if r.c.Accounts.Shared() {
		return r.settleShared(ctx, id)
	}
	t, err := r.people(ctx, id)
	if quire.KindOf(err) == quire.KindNotFound || t.project.Deleted != nil {
		return false // purged, or brought back by a work that sets it all
	}
	note := t.note()
	if err == nil {
		var rec quire.Receipt
		rec, err = r.permissions(ctx, t)
		note = strings.TrimSpace(rec.Note + " " + note)
	}
	switch {
	case ctx.Err() != nil:
		return false
	case quire.KindOf(err) == quire.KindUnavailable:
		return true
	case quire.KindOf(err) == quire.KindNotFound: // never started: nothing is on disk yet
		if err := r.c.write(ctx, quireItself, func(tx *txn) error {
			if err := tx.SetCut(id, t.newest); err != nil {
				return err
			}
			return tx.SetSwept(id, t.newest)
		}); err != nil {
			return true
		}
		r.teamNote(ctx, id, t.behind.Wanted, "")
		return false
	}
	if err != nil {
		r.c.Log.Error("the team is not on disk", "project", id, "err", err)
		note = quire.AsError(err).Message
		if t.uncut {
			r.teamNote(ctx, id, t.behind.Done, note)
			return true // taking rights away is tried until it works
		}
	} else if t.uncut {
		if !r.heard(ctx, t.project.Node, t.newest) {
			return ctx.Err() == nil
		}
		if err := r.c.write(ctx, quireItself, func(tx *txn) error {
			tx.touch(id)
			return tx.SetCut(id, t.newest)
		}); err != nil {
			r.c.Log.Error("a carried-out revocation was not stored", "project", id, "err", err)
			return true
		}
	}
	if err == nil && (t.unswept || t.behind.Done < t.behind.Wanted) {
		r.repair(id) // the files that are there already follow
	}
	r.teamNote(ctx, id, t.behind.Wanted, note)
	return false
}

// settleShared: with one account for everybody there is nothing on disk to
// change; what was open is closed by the node.
func (r *reconciler) settleShared(ctx context.Context, id quire.ProjectID) (again bool) {
	var p quire.Project
	var ls []store.Lowered
	var d store.TeamOnDisk
	err := r.c.read(ctx, func(tx *store.Tx) (err error) {
		if p, err = tx.Project("", id); err != nil {
			return err
		}
		if d, err = tx.TeamOnDisk(id); err != nil {
			return err
		}
		ls, err = tx.Lowered(id)
		return err
	})
	if err != nil {
		return false
	}
	var newest int64
	for _, l := range ls {
		if !l.Cut || !l.Swept {
			newest = max(newest, l.Rev.Seq)
		}
	}
	if newest > 0 && !r.heard(ctx, p.Node, newest) {
		return ctx.Err() == nil
	}
	err = r.c.write(ctx, quireItself, func(tx *txn) error {
		tx.touch(id)
		if err := tx.SetCut(id, newest); err != nil {
			return err
		}
		if err := tx.SetSwept(id, newest); err != nil {
			return err
		}
		return tx.SetTeamOnDisk(id, d.Wanted, "")
	})
	return err != nil && ctx.Err() == nil
}

func (r *reconciler) teamNote(ctx context.Context, id quire.ProjectID, done int64, note string) {
	if err := r.c.write(ctx, quireItself, func(tx *txn) error {
		tx.touch(id)
		return tx.SetTeamOnDisk(id, done, note)
	}); err != nil && ctx.Err() == nil {
		r.c.Log.Error("the team on disk was not stored", "project", id, "err", err)
	}
}

// permissions tells the node the team.
func (r *reconciler) permissions(ctx context.Context, t people) (quire.Receipt, error) {
	m, err := r.machine(t.project.Node)
	if err != nil {
		return quire.Receipt{}, err
	}
	return m.Do(ctx, r.c.orderAs(quire.OrderPermissions, t.project, t.project.Owner, t.owner, nil, t.team))
}

// hearLimit is how long one look for a node's word takes; then it is told again.
const hearLimit = 5 * time.Second

// heard waits until the node has closed and ended what revocations up to seq
// took away.
func (r *reconciler) heard(ctx context.Context, node quire.NodeID, seq int64) bool {
	w := r.c.hub.watch("")
	defer r.c.hub.leave(w)
	limit := time.NewTimer(hearLimit)
	defer limit.Stop()
	for {
		r.mu.Lock()
		l := r.nodes[node]
		r.mu.Unlock()
		if l == nil {
			return true // no such node any more: nothing runs there for us
		}
		l.mu.Lock()
		done, up := l.done, l.up
		l.mu.Unlock()
		if up && done >= seq {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-limit.C:
			return false
		case <-w.ch:
		}
	}
}

// wantRepair has the access lists below the project put right, now or after a
// crash.
func (c *core) wantRepair(tx *txn, id quire.ProjectID) error {
	tx.touch(id)
	if c.Accounts.Shared() {
		return nil
	}
	tx.wake(wakeRepair, string(id))
	return tx.SetRepairing(id, true)
}

// repair puts the access lists below the project right, beside whatever else
// happens to it.
func (r *reconciler) repair(id quire.ProjectID) {
	if r.c.Accounts.Shared() {
		return
	}
	r.once("repair "+string(id), func(ctx context.Context) {
		wait := time.Second
		for ctx.Err() == nil && r.settleRepair(ctx, id) {
			pause(ctx, wait)
			wait = min(2*wait, time.Minute)
		}
	})
}

func (r *reconciler) settleRepair(ctx context.Context, id quire.ProjectID) (again bool) {
	if err := r.repairing(ctx, id, true); err != nil {
		return ctx.Err() == nil
	}
	select { // one person may be in very many teams
	case r.repairs <- struct{}{}:
		defer func() { <-r.repairs }()
	case <-ctx.Done():
		return false
	}
	t, err := r.people(ctx, id)
	if quire.KindOf(err) == quire.KindNotFound || t.project.Deleted != nil {
		r.repairing(ctx, id, false)
		return false
	}
	var rec quire.Receipt
	if err == nil {
		rec, err = r.orderRepair(ctx, t, false)
	}
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		r.c.Log.Warn("permissions below a project were not repaired", "project", id, "err", err)
		rec.Note = quire.AsError(err).Message
	}
	again = quire.KindOf(err) == quire.KindUnavailable || err != nil && t.unswept
	werr := r.c.write(ctx, quireItself, func(tx *txn) error {
		tx.touch(id)
		if !again {
			if err := tx.SetRepairing(id, false); err != nil {
				return err
			}
		}
		if err != nil {
			return tx.SetRepaired(id, rec.Note)
		}
		if t.unswept {
			if err := tx.SetSwept(id, t.newest); err != nil {
				return err
			}
			for _, l := range t.lowered {
				a, err := tx.Account(l.User)
				if err != nil && quire.KindOf(err) != quire.KindNotFound {
					return err
				}
				if err := tx.SetReport(id, l.User, about(rec.Findings, a.UID)); err != nil {
					return err
				}
			}
			if err := r.c.teamChanged(tx, id); err != nil { // viewers among them get in again
				return err
			}
		}
		return tx.SetRepaired(id, rec.Note)
	})
	return ctx.Err() == nil && (werr != nil || again)
}

// repairing notes, for pages and whoever does the works next, that a repair goes
// on.
func (r *reconciler) repairing(ctx context.Context, id quire.ProjectID, on bool) error {
	return r.c.write(ctx, quireItself, func(tx *txn) error {
		tx.touch(id)
		return tx.SetRepairing(id, on)
	})
}

func (r *reconciler) orderRepair(ctx context.Context, t people, check bool) (quire.Receipt, error) {
	m, err := r.machine(t.project.Node)
	if err != nil {
		return quire.Receipt{}, err
	}
	team := t.team
	team.Expel = nil
	return m.Do(ctx, r.c.orderAs(quire.OrderRepair, t.project, t.project.Owner, t.owner, nil, quire.RepairArgs{TeamArgs: team, As: t.as, Full: t.unswept, Check: check}))
}
