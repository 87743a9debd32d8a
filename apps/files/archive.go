package files

import (
	"archive/tar"
	"archive/zip"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quire"
)

// leftOut is the name of the list, at the end of an archive, of what could not
// be read: an archive that is sent while it is made cannot report otherwise.
const leftOut = "LEFT-OUT.txt"

// Zip writes entries of a directory with all beneath them as a ZIP archive, as
// it reads them: nothing is kept.
func (t *Tree) Zip(ctx context.Context, w io.Writer, dir string, names []string) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	if err := t.pack(ctx, &zipper{z}, dir, names); err != nil {
		return err
	}
	return z.Close()
}

// Tar is Zip with an uncompressed tar archive, which keeps links and more of the
// rights.
func (t *Tree) Tar(ctx context.Context, w io.Writer, dir string, names []string) error {
	z := tar.NewWriter(w)
	if err := t.pack(ctx, &tarrer{z}, dir, names); err != nil {
		return err
	}
	return z.Close()
}

type packer interface {
	directory(name string, e Entry) error
	link(name, target string, e Entry) error
	file(name string, e Entry, r io.Reader) error
}

func (t *Tree) pack(ctx context.Context, to packer, dir string, names []string) error {
	dir, err := t.clean(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := CheckName(n); err != nil {
			return err
		}
		if t.only != "" && n != t.only {
			return quire.NotFound("file")
		}
	}
	d, err := t.at(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer d.Close()
	p := packing{ctx: ctx, to: to}
	for _, n := range names {
		if err := p.entry(d, n, n, 0); err != nil {
			return err
		}
	}
	if p.left == nil {
		return nil
	}
	text := "These could not be read and are not in the archive:\n\n" + strings.Join(p.left, "\n") + "\n"
	return to.file(leftOut, Entry{Name: leftOut, Size: int64(len(text)), Mode: 0o644, Modified: time.Now()}, strings.NewReader(text))
}

type packing struct {
	ctx  context.Context
	to   packer
	left []string
}

func (p *packing) leave(at string, err error) {
	if len(p.left) < 10000 {
		p.left = append(p.left, fmt.Sprintf("%q: %s", at, quire.AsError(err).Message))
	}
}

func (p *packing) entry(d *os.File, name, at string, depth int) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		p.leave(at, explain(err, at))
		return nil
	}
	e := entryOf(name, &st)
	switch e.Kind {
	case Directory:
		sub, err := beneath(int(d.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if err != nil {
			p.leave(at, err)
			return nil
		}
		defer sub.Close()
		if err := p.to.directory(at+"/", e); err != nil {
			return err
		}
		names, err := sub.Readdirnames(-1)
		if err != nil || depth > maxDepth {
			p.leave(at, quire.Failed("The directory cannot be read to its end.", err))
			return nil
		}
		slices.Sort(names)
		for _, n := range names {
			if strings.HasPrefix(n, tempPrefix) {
				continue
			}
			if err := p.entry(sub, n, at+"/"+n, depth+1); err != nil {
				return err
			}
		}
	case Link:
		b := make([]byte, maxPath)
		n, err := unix.Readlinkat(int(d.Fd()), name, b)
		if err != nil {
			p.leave(at, explain(err, at))
			return nil
		}
		return p.to.link(at, string(b[:n]), e)
	case File:
		f, err := regular(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW)
		if err != nil {
			p.leave(at, err)
			return nil
		}
		defer f.Close()
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return explain(err, at)
		}
		r := &exactly{ctx: p.ctx, r: f, left: st.Size}
		if err := p.to.file(at, entryOf(name, &st), r); err != nil {
			return err
		}
		if r.short {
			p.leave(at, quire.Failed("It became shorter while it was read; the rest was filled with zero bytes.", nil))
		}
	default:
		p.leave(at, onlyRegular(st.Mode))
	}
	return nil
}

// exactly gives as many bytes as a file had when its entry was begun, whatever
// happens to it meanwhile, and ends when the download does.
type exactly struct {
	ctx   context.Context
	r     io.Reader
	left  int64
	short bool
}

func (x *exactly) Read(b []byte) (int, error) {
	if err := x.ctx.Err(); err != nil {
		return 0, err
	}
	if x.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), x.left)]
	if x.short {
		clear(b)
		x.left -= int64(len(b))
		return len(b), nil
	}
	n, err := x.r.Read(b)
	x.left -= int64(n)
	if err != nil {
		x.short, err = x.left > 0, nil
	}
	return n, err
}

type zipper struct{ w *zip.Writer }

func zipMode(e Entry, kind os.FileMode) os.FileMode { return os.FileMode(e.Mode&0o777) | kind }

func (z *zipper) make(name string, e Entry, kind os.FileMode, method uint16) (io.Writer, error) {
	h := &zip.FileHeader{Name: name, Method: method, Modified: e.Modified}
	h.SetMode(zipMode(e, kind))
	return z.w.CreateHeader(h)
}

func (z *zipper) directory(name string, e Entry) error {
	_, err := z.make(name, e, os.ModeDir, zip.Store)
	return err
}

func (z *zipper) link(name, target string, e Entry) error {
	w, err := z.make(name, e, os.ModeSymlink, zip.Store)
	if err == nil {
		_, err = io.WriteString(w, target)
	}
	return err
}

func (z *zipper) file(name string, e Entry, r io.Reader) error {
	method := zip.Deflate
	switch strings.ToLower(path.Ext(name)) {
	case ".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp4", ".parquet", ".npz", ".whl", ".conda":
		method = zip.Store // packed already
	}
	w, err := z.make(name, e, 0, method)
	if err == nil {
		_, err = io.Copy(w, r)
	}
	return err
}

type tarrer struct{ w *tar.Writer }

func (z *tarrer) head(name string, kind byte, target string, size int64, e Entry) error {
	return z.w.WriteHeader(&tar.Header{Typeflag: kind, Name: name, Linkname: target, Size: size, Mode: int64(e.Mode & 0o777), ModTime: e.Modified})
}

func (z *tarrer) directory(name string, e Entry) error {
	return z.head(name, tar.TypeDir, "", 0, e)
}

func (z *tarrer) link(name, target string, e Entry) error {
	return z.head(name, tar.TypeSymlink, target, 0, e)
}

func (z *tarrer) file(name string, e Entry, r io.Reader) error {
	if err := z.head(name, tar.TypeReg, "", e.Size, e); err != nil {
		return err
	}
	_, err := io.Copy(z.w, r)
	return err
}
