package workbench

import (
	"net/http"
	"strconv"

	"quire"
	"quire/apps/files"
)

// maxPiece is the most that one request of an upload may carry, bytes.
const maxPiece = 64 << 20

func (b *bench) serveBegin(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Root, Path string
		Size       int64
		Modified   int64
		Replace    bool
	}
	if err := ask(w, r, &in); err != nil {
		return err
	}
	t, p, err := b.place(in.Root, in.Path)
	if err != nil {
		return err
	}
	u, err := b.uploads.Begin(t, files.Plan{Path: p, Size: in.Size, Modified: in.Modified, Replace: in.Replace})
	if err != nil {
		return err
	}
	return answer(w, u)
}

func (b *bench) serveProgress(w http.ResponseWriter, r *http.Request) error {
	u, err := b.uploads.Status(r.PathValue("id"))
	if err != nil {
		return err
	}
	return answer(w, u)
}

func (b *bench) servePiece(w http.ResponseWriter, r *http.Request) error {
	offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		return quire.Invalid("offset", "The offset is a number of bytes.")
	}
	u, err := b.uploads.Append(r.PathValue("id"), offset, http.MaxBytesReader(w, r.Body, maxPiece))
	if err != nil {
		return err
	}
	return answer(w, u)
}

func (b *bench) serveCancel(w http.ResponseWriter, r *http.Request) error {
	if err := b.uploads.Cancel(r.PathValue("id")); err != nil {
		return err
	}
	return answer(w, struct{}{})
}
