package store

import "quire"

// SaveDataCenter stores a data center, new or known.
func (t *Tx) SaveDataCenter(d quire.DataCenter) error {
	_, err := t.exec(`INSERT INTO data_centers (id, name, gateway, address, summary, apps) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, gateway = excluded.gateway, address = excluded.address, summary = excluded.summary, apps = excluded.apps`,
		d.ID, d.Name, d.Gateway, d.Address, d.Summary, d.Apps)
	return err
}

// SaveNode stores a node, new or known.
func (t *Tx) SaveNode(n quire.Node) error {
	_, err := t.exec(`INSERT INTO nodes (id, data_center, name, address, summary, note, drained) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET data_center = excluded.data_center, name = excluded.name, address = excluded.address,
		summary = excluded.summary, note = excluded.note, drained = excluded.drained`,
		n.ID, n.DataCenter, n.Name, n.Address, n.Summary, n.Note, n.Drained)
	return err
}

const peerColumns = `COALESCE(p.fingerprint, ''), COALESCE(p.generation, 0), COALESCE(p.issued, 0), COALESCE(p.expires, 0), COALESCE(p.joined, 0), COALESCE(p.cloned, FALSE)`

// A peerScan reads peerColumns.
type peerScan struct {
	into            *quire.Peer
	expires, joined int64
}

func (s *peerScan) fields() []any {
	return []any{&s.into.Fingerprint, &s.into.Generation, &s.into.Issued, &s.expires, &s.joined, &s.into.Cloned}
}

func (s *peerScan) done() {
	if s.expires != 0 {
		s.into.Expires = moment(s.expires)
	}
	if s.joined != 0 {
		s.into.Joined = moment(s.joined)
	}
}

// DataCenters lists all by name.
func (t *Tx) DataCenters() (ds []quire.DataCenter, err error) {
	err = t.query(func(scan func(...any) error) error {
		var d quire.DataCenter
		p := peerScan{into: &d.Peer}
		if err := scan(append([]any{&d.ID, &d.Name, &d.Gateway, &d.Address, &d.Summary, &d.Apps}, p.fields()...)...); err != nil {
			return err
		}
		p.done()
		ds = append(ds, d)
		return nil
	}, `SELECT d.id, d.name, d.gateway, d.address, d.summary, d.apps, `+peerColumns+`
		FROM data_centers d LEFT JOIN peers p ON p.node = d.gateway WHERE d.removed IS NULL ORDER BY d.name`)
	return ds, err
}

// AppsOf is where browsers find the apps of a data center, "" for the server's
// own way.
func (t *Tx) AppsOf(id quire.DataCenterID) (apps string, err error) {
	err = t.one("data center", `SELECT apps FROM data_centers WHERE id = $1`, []any{id}, &apps)
	return apps, err
}

// Nodes lists all by name.
func (t *Tx) Nodes() (ns []quire.Node, err error) {
	err = t.query(func(scan func(...any) error) error {
		var n quire.Node
		p := peerScan{into: &n.Peer}
		if err := scan(append([]any{&n.ID, &n.DataCenter, &n.Name, &n.Address, &n.Summary, &n.Note, &n.Drained}, p.fields()...)...); err != nil {
			return err
		}
		p.done()
		ns = append(ns, n)
		return nil
	}, `SELECT n.id, n.data_center, n.name, n.address, n.summary, n.note, n.drained, `+peerColumns+`
		FROM nodes n LEFT JOIN peers p ON p.node = n.id WHERE n.removed IS NULL ORDER BY n.name`)
	return ns, err
}

// RemoveNode takes a node or a gateway (with its data center) out of the
// installation. What they were stays readable in old rows; their names are free.
func (t *Tx) RemoveNode(id quire.NodeID) error {
	for _, q := range []string{
		`UPDATE nodes SET removed = $2, name = name || ' (removed ' || id || ')' WHERE id = $1 AND removed IS NULL`,
		`UPDATE data_centers SET removed = $2, name = name || ' (removed ' || id || ')' WHERE gateway = $1 AND removed IS NULL`,
	} {
		if _, err := t.exec(q, id, millis(t.Now)); err != nil {
			return err
		}
	}
	_, err := t.exec(`DELETE FROM peers WHERE node = $1`, id)
	return err
}

// ProjectsOn counts the projects that live, or could be restored, on a node.
func (t *Tx) ProjectsOn(id quire.NodeID) (n int, err error) {
	err = t.one("node", `SELECT COUNT(*) FROM projects WHERE node = $1`, []any{id}, &n)
	return n, err
}

// SavePeer stores a key, new or known.
func (t *Tx) SavePeer(id quire.NodeID, p quire.Peer, token string) error {
	_, err := t.exec(`INSERT INTO peers (node, fingerprint, generation, issued, expires, joined, cloned, token) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (node) DO UPDATE SET fingerprint = excluded.fingerprint, generation = excluded.generation, issued = excluded.issued,
		expires = excluded.expires, cloned = excluded.cloned, token = excluded.token`,
		id, p.Fingerprint, p.Generation, p.Issued, millis(p.Expires), millis(t.Now), p.Cloned, token)
	return err
}

// PeerByKey finds whose key it is, and the token by which it joined.
func (t *Tx) PeerByKey(fingerprint string) (id quire.NodeID, p quire.Peer, token string, err error) {
	s := peerScan{into: &p}
	err = t.one("peer", `SELECT p.node, p.token, `+peerColumns+` FROM peers p WHERE p.fingerprint = $1`, []any{fingerprint}, append([]any{&id, &token}, s.fields()...)...)
	s.done()
	return id, p, token, err
}

// Peer is what is known of a gateway's or node's key, and the token by which it
// joined.
func (t *Tx) Peer(id quire.NodeID) (p quire.Peer, token string, err error) {
	s := peerScan{into: &p}
	err = t.one("peer", `SELECT p.token, `+peerColumns+` FROM peers p WHERE p.node = $1`, []any{id}, append([]any{&token}, s.fields()...)...)
	s.done()
	return p, token, err
}

// AddJoinToken stores a token's record.
func (t *Tx) AddJoinToken(k quire.JoinToken) error {
	_, err := t.exec(`INSERT INTO join_tokens (id, role, data_center, name, address, summary, uses, created, expires, by_name) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		k.ID, k.Role, k.DataCenter, k.Name, k.Address, k.Summary, k.Uses, millis(k.Created), millis(k.Expires), k.By)
	return err
}

// UseJoinToken takes one use of a token.
func (t *Tx) UseJoinToken(id string) (bool, error) {
	return t.exec(`UPDATE join_tokens SET uses = uses - 1 WHERE id = $1 AND uses > 0`, id)
}

// DropJoinTokens forgets a token, or (id "") all whose time is over.
func (t *Tx) DropJoinTokens(id string) (bool, error) {
	if id == "" {
		return t.exec(`DELETE FROM join_tokens WHERE expires < $1`, millis(t.Now))
	}
	return t.exec(`DELETE FROM join_tokens WHERE id = $1`, id)
}

// JoinTokens lists those that have not expired, the newest first.
func (t *Tx) JoinTokens() (ks []quire.JoinToken, err error) {
	err = t.query(func(scan func(...any) error) error {
		var k quire.JoinToken
		var created, expires int64
		if err := scan(&k.ID, &k.Role, &k.DataCenter, &k.Name, &k.Address, &k.Summary, &k.Uses, &created, &expires, &k.By); err != nil {
			return err
		}
		k.Created, k.Expires = moment(created), moment(expires)
		ks = append(ks, k)
		return nil
	}, `SELECT id, role, data_center, name, address, summary, uses, created, expires, by_name FROM join_tokens WHERE expires >= $1 ORDER BY created DESC, id`, millis(t.Now))
	return ks, err
}

// Setting returns a stored value, "" if there is none.
func (t *Tx) Setting(name string) (value string, err error) {
	err = t.one("setting", `SELECT value FROM settings WHERE name = $1`, []any{name}, &value)
	if quire.KindOf(err) == quire.KindNotFound {
		return "", nil
	}
	return value, err
}

// SetSetting stores a value.
func (t *Tx) SetSetting(name, value string) error {
	_, err := t.exec(`INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}
