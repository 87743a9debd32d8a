package control

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"quire"
	"quire/store"
)

// Rotation changes the installation's authority for a new one while everything
// goes on. Which authorities there are lies in files of the server's machine
// (Authority); who has been carried over, and since when, in the database.
type Rotation struct{ c *core }

// A RotationState is how far a change has come.
type RotationState struct {
	Running bool      `json:"running"`
	Begun   time.Time `json:"begun,omitzero"`
	Done    []string  `json:"done"` // names of machines that have a certificate of the new authority
	Left    []string  `json:"left"` // names of those that do not
	Away    []string  `json:"away"` // those of them that cannot be reached
	own     []string  // of them that run on the server's own machine
}

// rotated is what is remembered of a change.
type rotated struct {
	Authority string         `json:"authority"` // fingerprint of the new one
	Begun     time.Time      `json:"begun"`
	Done      []quire.NodeID `json:"done"`
	Ended     bool           `json:"ended,omitempty"` // the old one counts no more
}

const rotationSetting = "authority"

// shownKey is what a gateway or node said last of its key.
type shownKey struct {
	role string
	is   quire.PeerIdentity
}

// newest is the fingerprint of the authority that takes over, "" if none does.
func (c *core) newest() string {
	if c.Authority == nil {
		return ""
	}
	if _, ids := c.Authority.Trusted(); len(ids) > 1 {
		return ids[len(ids)-1]
	}
	return ""
}

// trusted is what every link is told first. A process on a machine whose files
// know nothing of a change says nothing: its word would undo what others said.
func (c *core) trusted(ctx context.Context) []byte {
	if c.Authority == nil {
		return nil
	}
	text, ids := c.Authority.Trusted()
	if len(ids) > 1 {
		return text
	}
	var have rotated
	err := c.read(ctx, func(tx *store.Tx) (err error) { have, err = rotationOf(tx); return err })
	if err != nil || !have.Ended || have.Authority != ids[0] {
		return nil
	}
	return text
}

// Begin makes a second authority, which takes over from the first. Again is the
// same as once.
func (o *Rotation) Begin(ctx context.Context, by quire.Actor) error {
	if err := needAdmin(by); err != nil {
		return err
	}
	if o.c.Authority == nil {
		return quire.Unavailable("This server has no certificate authority.", nil)
	}
	if err := o.c.Authority.Rotate(); err != nil {
		return quire.Failed("The second authority could not be written.", err)
	}
	err := o.c.write(ctx, by, func(tx *txn) error {
		have, err := rotationOf(tx.Tx)
		if err != nil || have.Authority == o.c.newest() {
			return err
		}
		if err := saveRotation(tx, rotated{Authority: o.c.newest(), Begun: tx.Now}); err != nil {
			return err
		}
		tx.touch("")
		return tx.event("authority.rotate", "", o.c.newest())
	})
	o.c.loop.tellAuthorities(ctx)
	return err
}

// State says how far it is.
func (o *Rotation) State(ctx context.Context, by quire.Actor) (s RotationState, err error) {
	if err := needAdmin(by); err != nil {
		return s, err
	}
	s.Done, s.Left, s.Away = []string{}, []string{}, []string{}
	newest := o.c.newest()
	if newest == "" {
		return s, nil
	}
	var have rotated
	var dcs []quire.DataCenter
	var nodes []quire.Node
	tokens := map[quire.NodeID]string{}
	err = o.c.read(ctx, func(tx *store.Tx) (err error) {
		if have, err = rotationOf(tx); err != nil {
			return err
		}
		if dcs, err = tx.DataCenters(); err != nil {
			return err
		}
		if nodes, err = tx.Nodes(); err != nil {
			return err
		}
		for id := range o.c.loop.everybody() {
			if _, tokens[id], err = tx.Peer(id); err != nil && quire.KindOf(err) != quire.KindNotFound {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	s.Running, s.Begun = true, have.Begun
	count := func(id quire.NodeID, name string, up bool) {
		if have.Authority == newest && slices.Contains(have.Done, id) {
			s.Done = append(s.Done, name)
			return
		}
		s.Left = append(s.Left, name)
		if !up {
			s.Away = append(s.Away, name)
		}
		if tokens[id] == "" {
			s.own = append(s.own, name)
		}
	}
	for _, dc := range dcs {
		up, _ := o.c.loop.gatewayState(dc.ID)
		count(dc.Gateway, "the gateway of "+dc.Name, up)
	}
	for _, n := range nodes {
		count(n.ID, n.Name, o.c.loop.nodeUp(n.ID))
	}
	return s, nil
}

// Finish drops the old authority. Machines that have no certificate of the new
// one are cut off until they join again; without force that is refused.
func (o *Rotation) Finish(ctx context.Context, by quire.Actor, force bool) (RotationState, error) {
	s, err := o.State(ctx, by)
	switch {
	case err != nil:
		return s, err
	case !s.Running:
		return s, quire.Conflict("", "No change of the authority is under way.")
	case len(s.own) > 0:
		return s, quire.Conflict("", "Start what is on the server's own machine first, it cannot join again: "+strings.Join(s.own, ", ")+".")
	case len(s.Left) > 0 && !force:
		return s, quire.Conflict("", "These have no certificate of the new authority yet and would have to join again: "+strings.Join(s.Left, ", ")+".")
	}
	return s, o.finish(ctx, by, s.Left)
}

func (o *Rotation) finish(ctx context.Context, by quire.Actor, left []string) error {
	if err := o.c.Authority.Finish(); err != nil {
		return quire.Failed("The old authority could not be dropped.", err)
	}
	err := o.c.write(ctx, by, func(tx *txn) error {
		detail := "every machine has a certificate of the new authority"
		if len(left) > 0 {
			detail = "must join again: " + strings.Join(left, ", ")
		}
		tx.touch("")
		_, ids := o.c.Authority.Trusted()
		if err := saveRotation(tx, rotated{Authority: ids[0], Ended: true}); err != nil {
			return err
		}
		return tx.event("authority.finish", "", detail)
	})
	o.c.loop.tellAuthorities(ctx)
	return err
}

func rotationOf(tx *store.Tx) (r rotated, err error) {
	text, err := tx.Setting(rotationSetting)
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &r)
	}
	return r, err
}

func saveRotation(tx *txn, r rotated) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return tx.SetSetting(rotationSetting, string(b))
}

// everybody are the gateways and nodes there are.
func (r *reconciler) everybody() map[quire.NodeID]quire.Peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peers
}

// turning notes what a machine says of its key, and whether it is to get a
// certificate of the new authority now: it and everybody whose link is up trust
// that one already, so nobody will refuse it. Who is away is told first when he
// comes back, by a server that still shows a certificate of the old one.
func (r *reconciler) turning(id quire.NodeID, role string, is quire.PeerIdentity) bool {
	r.mu.Lock()
	r.shown[id] = shownKey{role, is}
	r.mu.Unlock()
	newest := r.c.newest()
	if newest == "" || is.Issuer == newest || !slices.Contains(is.Trusts, newest) {
		return false
	}
	for other := range r.upNow() {
		r.mu.Lock()
		said := r.shown[other]
		r.mu.Unlock()
		if !slices.Contains(said.is.Trusts, newest) {
			return false
		}
	}
	return true
}

// upNow are the machines whose links are up, each with a way to hand it a
// certificate.
func (r *reconciler) upNow() map[quire.NodeID]func(cert []byte) {
	r.mu.Lock()
	nodes, gateways := make([]*nodeLink, 0, len(r.nodes)), make([]*gatewayLink, 0, len(r.gateways))
	for _, l := range r.nodes {
		nodes = append(nodes, l)
	}
	for _, l := range r.gateways {
		gateways = append(gateways, l)
	}
	r.mu.Unlock()
	up := map[quire.NodeID]func([]byte){}
	for _, l := range nodes {
		l.mu.Lock()
		if l.up {
			up[l.node.ID] = func(cert []byte) { l.mu.Lock(); l.cert = cert; l.mu.Unlock() }
		}
		l.mu.Unlock()
	}
	for _, l := range gateways {
		l.mu.Lock()
		if l.up {
			up[l.dc.Gateway] = func(cert []byte) { l.mu.Lock(); l.cert = cert; l.mu.Unlock() }
		}
		l.mu.Unlock()
	}
	return up
}

// tellAuthorities tells every link whose certificates count now.
func (r *reconciler) tellAuthorities(ctx context.Context) {
	text := r.c.trusted(ctx)
	r.mu.Lock()
	for _, l := range r.nodes {
		l.mu.Lock()
		l.trust = text
		l.mu.Unlock()
	}
	for _, l := range r.gateways {
		l.mu.Lock()
		l.trust = text
		l.mu.Unlock()
	}
	r.mu.Unlock()
	r.feedNow()
}

// carryAuthority goes on with a change: it hands out certificates, writes down
// who shows one, and drops the old authority when everybody does.
func (r *reconciler) carryAuthority() {
	newest := r.c.newest()
	r.mu.Lock()
	ctx, before := r.ctx, r.taking
	r.taking = newest
	r.mu.Unlock()
	if ctx == nil {
		return
	}
	if newest != before { // another process on this machine has begun or ended it
		r.start(r.tellAuthorities)
	}
	if newest == "" {
		return
	}
	r.start(func(ctx context.Context) { r.endAuthority(ctx, newest) })
	r.once("authority", func(ctx context.Context) {
		for id, give := range r.upNow() {
			r.mu.Lock()
			said, ok := r.shown[id]
			r.mu.Unlock()
			if !ok || said.is.Issuer == newest {
				continue
			}
			if cert := r.peer(ctx, said.role, id, said.is); cert != nil {
				give(cert)
			}
		}
		left, err := r.countRotated(ctx, newest)
		if err == nil && left == 0 {
			err = (&Rotation{r.c}).finish(ctx, quireItself, nil)
		}
		if err != nil {
			r.c.Log.Error("the change of the authority waits", "err", err)
		}
	})
}

// endAuthority drops the old authority here too when a server on another machine
// has done so.
func (r *reconciler) endAuthority(ctx context.Context, newest string) {
	var have rotated
	err := r.c.read(ctx, func(tx *store.Tx) (err error) { have, err = rotationOf(tx); return err })
	if err == nil && have.Ended && have.Authority == newest {
		err = r.c.Authority.Finish()
	}
	if err != nil {
		r.c.Log.Error("the old authority still counts here", "err", err)
	}
}

// countRotated writes down who shows a certificate of the new authority now, and
// counts the others.
func (r *reconciler) countRotated(ctx context.Context, newest string) (left int, err error) {
	var have rotated
	err = r.c.read(ctx, func(tx *store.Tx) (err error) { have, err = rotationOf(tx); return err })
	if err != nil {
		return 0, err
	}
	if have.Ended && have.Authority == newest {
		return 1, nil // endAuthority's
	}
	if have.Authority != newest {
		have = rotated{Authority: newest, Begun: r.c.Now()}
	}
	var fresh []string
	for id := range r.everybody() {
		r.mu.Lock()
		said := r.shown[id]
		r.mu.Unlock()
		switch {
		case slices.Contains(have.Done, id):
		case said.is.Issuer == newest:
			have.Done, fresh = append(have.Done, id), append(fresh, said.role+" "+string(id))
		default:
			left++
		}
	}
	if len(fresh) == 0 {
		return left, nil
	}
	return left, r.c.write(ctx, quireItself, func(tx *txn) error {
		tx.touch("")
		for _, who := range fresh {
			if err := tx.event("authority.renewed", "", who); err != nil {
				return err
			}
		}
		return saveRotation(tx, have)
	})
}
