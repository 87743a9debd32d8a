package ticket

import (
	"encoding/binary"
	"errors"
	"time"
)

// The layout is fixed: a writer and a reader that name every field in the same
// order. Strings carry a two-byte length, numbers are big-endian, times are
// Unix milliseconds. There is nothing optional and nothing may be left over, so
// one meaning has exactly one encoding.

type writer struct{ b []byte }

func (w *writer) byte(v byte)     { w.b = append(w.b, v) }
func (w *writer) uint32(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *writer) int64(v int64)   { w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) }
func (w *writer) time(t time.Time) {
	if t.IsZero() {
		w.int64(0)
		return
	}
	w.int64(t.UnixMilli())
}
func (w *writer) bytes(v []byte) {
	if len(v) > maxField {
		panic("ticket: field too long to sign")
	}
	w.b = binary.BigEndian.AppendUint16(w.b, uint16(len(v)))
	w.b = append(w.b, v...)
}

const maxField = 1<<16 - 1

var errLayout = errors.New("the layout is wrong")

type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || len(r.b) < n {
		r.err = errLayout
		return make([]byte, n)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}
func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) int64() int64   { return int64(binary.BigEndian.Uint64(r.take(8))) }
func (r *reader) time() time.Time {
	ms := r.int64()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
func (r *reader) bytes() []byte {
	n := int(binary.BigEndian.Uint16(r.take(2)))
	if r.err != nil || len(r.b) < n {
		r.err = errLayout
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
func (r *reader) string() string { return string(r.bytes()) }

// end says what went wrong: a short field, or bytes left over.
func (r *reader) end() error {
	if r.err != nil {
		return r.err
	}
	if len(r.b) != 0 {
		return errLayout
	}
	return nil
}
