package viewer

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"quire"
)

// What a file may cost. Larger ones are offered for download.
const (
	maxNotebook = 20 << 20 // bytes
	maxSource   = 2 << 20  // bytes
	maxLines    = 50_000   // of source
	maxRows     = 1_000    // of a table
	maxColumns  = 200

	renderTime    = 10 * time.Second
	renderMemory  = 768 << 20       // bytes, hard
	renderRegards = 512 << 20       // bytes, from where on the collector works hard
	renderAnswer  = maxPage + 8<<20 // bytes of HTML
	renderAtOnce  = 2
)

// A view is a way to show a file.
type view string

const (
	viewNotebook view = "notebook"
	viewMarkdown view = "markdown"
	viewTable    view = "table"
	viewSource   view = "source"
)

// limit is the size of the largest file that the view takes.
func (v view) limit() int64 {
	if v == viewNotebook {
		return maxNotebook
	}
	return maxSource
}

// renderers runs the process that turns a file into HTML.
type renderers struct {
	command []string
	time    time.Duration // for one file
	turns   chan struct{}
}

func newRenderers(command []string) *renderers {
	return &renderers{command: command, time: renderTime, turns: make(chan struct{}, renderAtOnce)}
}

// errTooLarge is said of files whose page would cost too much.
func errTooLarge(how string) error {
	return &quire.Error{Kind: quire.KindInvalid, Message: "This file is too large to render: " + how + ". It can be downloaded."}
}

const exitRefused = 3 // the file is at fault, and the sentence is on stderr

// render gives the file's HTML, made by a process that is killed when it takes
// too long. prefix and names are where the file is seen.
func (r *renderers) render(ctx context.Context, v view, f *os.File, prefix string, names []string) (template.HTML, error) {
	ctx, cancel := context.WithTimeout(ctx, r.time)
	defer cancel()
	select {
	case r.turns <- struct{}{}:
		defer func() { <-r.turns }()
	case <-ctx.Done():
		return "", &quire.Error{Kind: quire.KindUnavailable, Message: "Other files are being rendered. Try again in a moment.", RetryAfter: 5}
	}
	args := append(r.command[1:len(r.command):len(r.command)], "--view", string(v), "--url-prefix", prefix, "--")
	cmd := exec.CommandContext(ctx, r.command[0], append(args, names...)...)
	cmd.Stdin = f
	cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=none"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stderr = &capped{w: &said, left: 4096}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start the renderer: %w", err)
	}
	var page strings.Builder
	_, copied := io.Copy(&page, io.LimitReader(out, renderAnswer+1))
	if page.Len() > renderAnswer {
		cancel()
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case page.Len() > renderAnswer:
		return "", errTooLarge("its page would be larger than " + size(renderAnswer))
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", errTooLarge(fmt.Sprintf("it took longer than %d seconds", int(r.time.Seconds())))
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == exitRefused:
		return "", quire.Invalid("", cut(strings.TrimSpace(said.String()), 500))
	case errors.As(err, &exit):
		// Out of memory, nearly always: the limit is the kernel's.
		return "", fmt.Errorf("render: %w: %s: %w", err, strings.TrimSpace(said.String()), errTooLarge("it needs too much memory"))
	case err != nil:
		return "", fmt.Errorf("render: %w", err)
	case copied != nil:
		return "", fmt.Errorf("read the rendered page: %w", copied)
	}
	return built(page.String()), nil
}

// capped keeps the beginning of what is written to it.
type capped struct {
	w    io.Writer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	_, err := c.w.Write(p[:n])
	return len(p), err
}

// renderMain is the other side: a file on in, HTML on out.
func renderMain(args []string, in io.Reader, out, trouble io.Writer) int {
	flags := flag.NewFlagSet("quire viewer --render", flag.ContinueOnError)
	flags.SetOutput(trouble)
	how := flags.String("view", "", "notebook, markdown, table or source")
	prefix := flags.String("url-prefix", "", "path below which the app is seen")
	memory := flags.Uint64("memory", renderMemory, "the most it may use, in bytes; 0 for no limit")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	debug.SetMemoryLimit(renderRegards)
	limits := map[int]uint64{unix.RLIMIT_CPU: uint64(2 * renderTime.Seconds()), unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0}
	if *memory > 0 {
		limits[unix.RLIMIT_DATA] = *memory
	}
	for resource, limit := range limits {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			fmt.Fprintln(trouble, "limits:", err)
			return 1
		}
	}
	page, err := renderView(view(*how), in, *prefix, flags.Args())
	if err != nil {
		fmt.Fprintln(trouble, quire.AsError(err).Message)
		return exitRefused
	}
	if _, err := io.WriteString(out, string(page)); err != nil {
		return 1
	}
	return 0
}

func renderView(v view, in io.Reader, prefix string, names []string) (template.HTML, error) {
	raw, err := io.ReadAll(io.LimitReader(in, v.limit()+1))
	if err != nil {
		return "", err
	}
	whole := int64(len(raw)) <= v.limit()
	if !whole && v != viewTable {
		return "", errTooLarge("the limit is " + size(v.limit()))
	}
	l := links{prefix: prefix}
	name := ""
	if len(names) > 0 {
		l.dir, name = names[:len(names)-1], names[len(names)-1]
	}
	switch v {
	case viewNotebook:
		return renderNotebook(raw, l)
	case viewMarkdown:
		return `<article class="prose text">` + markdown(string(raw), l) + `</article>`, nil
	case viewTable:
		return renderTable(raw, whole, strings.HasSuffix(strings.ToLower(name), ".tsv"))
	case viewSource:
		return renderSource(string(raw), languageOf(name)), nil
	}
	return "", fmt.Errorf("no view %q", v)
}

// renderSource numbers the lines; each number is an address. The Tab key passes
// them by: thousands of stops would be in its way.
func renderSource(code string, l *language) template.HTML {
	code = strings.TrimPrefix(code, "\uFEFF")
	code = strings.ReplaceAll(code, "\r\n", "\n")
	code = strings.TrimSuffix(code, "\n")
	var w writer
	w.put(`<pre class="listing" tabindex="0"><code>`)
	n := 0
	for line := range strings.SplitSeq(highlight(code, l), "\n") {
		if n == maxLines {
			break
		}
		n++
		number := built(strconv.Itoa(n))
		w.put(`<span class="line" id="L`, number, `"><a class="number" tabindex="-1" href="#L`, number, `" aria-label="Line `, number, `" data-line="`, number, `"></a>`, built(line), "\n</span>")
	}
	w.full = false
	w.put(`</code></pre>`)
	if total := strings.Count(code, "\n") + 1; total > n {
		w.put(note("Too large to render: only the first %d of %d lines are shown.", n, total))
	}
	return built(w.b.String())
}

func renderTable(raw []byte, whole, tabs bool) (template.HTML, error) {
	text := strings.TrimPrefix(strings.ToValidUTF8(string(raw), "\uFFFD"), "\uFEFF")
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord, r.LazyQuotes, r.ReuseRecord = -1, true, true
	first, _, _ := strings.Cut(text, "\n")
	switch {
	case tabs:
		r.Comma = '\t'
	case strings.Count(first, ";") > strings.Count(first, ","):
		r.Comma = ';'
	case !strings.Contains(first, ",") && strings.Contains(first, "\t"):
		r.Comma = '\t'
	}
	var w writer
	w.put(`<div class="table-box" tabindex="0" role="region" aria-label="Table"><table class="data">`)
	rows, wide := 0, 0
	for ; rows <= maxRows; rows++ {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.put(`</table></div>`, note("Row %d cannot be read as a row of a table. The source shows it.", rows+1))
			return built(w.b.String()), nil
		}
		if rows == maxRows {
			whole = false
			break
		}
		row(&w, rows, record)
		wide = max(wide, len(record))
	}
	w.put(`</tbody></table></div>`)
	if rows == 0 {
		return note("This table is empty."), nil
	}
	if !whole || w.full {
		w.full = false
		w.put(note("Only the first %d rows are shown. The download has all.", rows))
	}
	if wide > maxColumns {
		w.put(note("Only the first %d of %d columns are shown.", maxColumns, wide))
	}
	return built(w.b.String()), nil
}

func row(w *writer, n int, record []string) {
	open, end := built(`<td>`), built(`</td>`)
	if n == 0 {
		open, end = `<th scope="col">`, `</th>`
		w.put(`<thead>`)
	}
	w.put(`<tr>`)
	for i, field := range record {
		if i == maxColumns {
			break
		}
		at := open
		if _, err := strconv.ParseFloat(strings.TrimSpace(field), 64); err == nil && n > 0 {
			at = `<td class="num">`
		}
		w.put(at, escaped(cut(field, 2000)), end)
	}
	w.put(`</tr>`)
	if n == 0 {
		w.put(`</thead><tbody>`)
	}
}

// isText guesses by the beginning of a file whether people can read it.
func isText(head []byte) bool {
	if bytes.IndexByte(head, 0) >= 0 {
		return false
	}
	bad := 0
	for i := 0; i < len(head); {
		r, n := utf8.DecodeRune(head[i:])
		if r == utf8.RuneError && n == 1 && len(head)-i >= utf8.UTFMax || r < 0x20 && r != '\n' && r != '\r' && r != '\t' && r != '\f' && r != 0x1b {
			bad++
		}
		i += n
	}
	return bad*10 <= len(head)
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 1000:
		return strconv.FormatInt(n, 10) + " bytes"
	case n < 1_000_000:
		return strconv.FormatFloat(float64(n)/1e3, 'f', 1, 64) + " kB"
	case n < 1_000_000_000:
		return strconv.FormatFloat(float64(n)/1e6, 'f', 1, 64) + " MB"
	}
	return strconv.FormatFloat(float64(n)/1e9, 'f', 1, 64) + " GB"
}
