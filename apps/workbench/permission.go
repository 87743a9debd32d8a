package workbench

import (
	"context"
	"net/http"
	"path"

	"quire"
	"quire/acl"
	"quire/apps/files"
)

// A ruleJSON is one line of the dialog.
type ruleJSON struct {
	Who  string `json:"who"` // owner, user, group, named (a named group), mask, other
	Name string `json:"name,omitempty"`
	Perm uint16 `json:"perm"`
}

func tagWord(t acl.Tag) string {
	switch t {
	case acl.Owner:
		return "owner"
	case acl.User:
		return "user"
	case acl.Group:
		return "group"
	case acl.Named:
		return "named"
	case acl.Mask:
		return "mask"
	}
	return "other"
}

func wordTag(word string) (acl.Tag, error) {
	for _, t := range []acl.Tag{acl.Owner, acl.User, acl.Group, acl.Named, acl.Mask, acl.Other} {
		if tagWord(t) == word {
			return t, nil
		}
	}
	return 0, quire.Invalid("who", "That kind of entry does not exist.")
}

// rules gives a list names.
func (b *bench) rules(ctx context.Context, list []acl.Entry) []ruleJSON {
	var users, groups []uint32
	for _, e := range list {
		switch e.Tag {
		case acl.User:
			users = append(users, e.ID)
		case acl.Named:
			groups = append(groups, e.ID)
		}
	}
	names, groupNames := b.people.Names(ctx, users), b.people.Groups(ctx, groups)
	out := []ruleJSON{}
	for _, e := range list {
		r := ruleJSON{Who: tagWord(e.Tag), Perm: e.Perm}
		switch e.Tag {
		case acl.User:
			r.Name = names[e.ID]
		case acl.Named:
			r.Name = groupNames[e.ID]
		}
		out = append(out, r)
	}
	return out
}

func (b *bench) servePermissions(w http.ResponseWriter, r *http.Request) error {
	t, p, err := b.asked(r)
	if err != nil {
		return err
	}
	perms, err := t.Permissions(p)
	if err != nil {
		return err
	}
	ctx := r.Context()
	return answer(w, map[string]any{
		"entry": entryOut(perms.Entry), "mine": perms.Mine, "rules": b.rules(ctx, perms.Access), "inherit": perms.Default != nil,
		"owner": b.people.Names(ctx, []uint32{perms.UID})[perms.UID], "group": b.people.Groups(ctx, []uint32{perms.GID})[perms.GID],
	})
}

func (b *bench) serveSetPermissions(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Root, Path string
		Rules      []ruleJSON
		Group      string
		Inherit    bool
		Recursive  bool
		Preview    bool
	}
	if err := ask(w, r, &in); err != nil {
		return err
	}
	t, p, err := b.place(in.Root, in.Path)
	if err != nil {
		return err
	}
	c := files.Change{Group: -1, Inherit: in.Inherit, Recursive: in.Recursive, Preview: in.Preview}
	if in.Group != "" {
		gid, err := b.people.Group(r.Context(), in.Group)
		if err != nil {
			return err
		}
		c.Group = int(gid)
	}
	if len(in.Rules) > 2*acl.MaxNamed {
		return quire.Invalid("rules", "That is more people than one file can name. Use a group.")
	}
	for _, rule := range in.Rules {
		e := acl.Entry{Perm: rule.Perm}
		if e.Tag, err = wordTag(rule.Who); err != nil {
			return err
		}
		switch e.Tag {
		case acl.User:
			e.ID, err = b.people.User(r.Context(), rule.Name)
		case acl.Named:
			e.ID, err = b.people.Group(r.Context(), rule.Name)
		}
		if err != nil {
			return err
		}
		c.Access = append(c.Access, e)
	}
	if !c.Recursive {
		done, err := t.SetPermissions(r.Context(), p, c, func(files.Progress) {})
		if err != nil {
			return err
		}
		return answer(w, progressJSON{Items: done.Items, Done: true})
	}
	s := &stream{w: w}
	s.begin()
	done, err := t.SetPermissions(r.Context(), p, c, s.report)
	return s.end(done, err)
}

// serveShare lets one person outside the team reach one thing.
func (b *bench) serveShare(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Root, Path, Name string
		Write            bool
	}
	if err := ask(w, r, &in); err != nil {
		return err
	}
	t, p, err := b.place(in.Root, in.Path)
	if err != nil {
		return err
	}
	if in.Root == "home" {
		return quire.Invalid("path", "Sharing from here would open your home directory. Copy it into the project and share it there.")
	}
	if t.Only() != "" {
		return quire.Forbidden("It belongs to somebody else, who alone can share it.")
	}
	uid, err := b.people.User(r.Context(), in.Name)
	if err != nil {
		return err
	}
	done, err := t.Share(r.Context(), p, files.Grant{UID: uid, Write: in.Write}, func(files.Progress) {})
	if err != nil {
		return err
	}
	full, _ := wireName(path.Join(t.Path, p))
	return answer(w, map[string]any{"full": full, "items": done.Items, "failed": done.Failed, "errors": done.Errors})
}
