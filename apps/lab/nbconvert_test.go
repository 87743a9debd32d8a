package lab

import (
	"archive/zip"
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestExport(t *testing.T) {
	c := newClient(t)
	if m := c.ask(200, "GET", "api/nbconvert", nil); m["html"].(object)["output_mimetype"] != "text/html" || m["python"] == nil {
		t.Fatalf("%v", m)
	}
	c.ask(201, "PUT", "api/contents/a%20[b].ipynb", save(book(code("a", "print('hi')", object{"output_type": "display_data", "metadata": object{}, "data": object{"image/png": "aGk="}}))))
	answer, b := c.do("GET", "nbconvert/python/a%20[b].ipynb?download=true", nil)
	if answer.StatusCode != 200 || !bytes.Contains(b, []byte("print('hi')")) || answer.Header.Get("Content-Disposition") != "attachment; filename*=UTF-8''a%20%5Bb%5D.py" {
		t.Errorf("%v %s", answer, b)
	}
	answer, b = c.do("GET", "nbconvert/html/a%20[b].ipynb", nil)
	if answer.StatusCode != 200 || !strings.HasPrefix(answer.Header.Get("Content-Disposition"), "attachment") || !strings.Contains(answer.Header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%v %.200s", answer, b)
	}
	answer, b = c.do("GET", "nbconvert/markdown/a%20[b].ipynb", nil)
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if answer.StatusCode != 200 || err != nil || len(z.File) < 2 {
		t.Errorf("%v %v", answer, err)
	}
	c.ask(404, "GET", "nbconvert/nothing/a%20[b].ipynb", nil)
	c.ask(404, "GET", "nbconvert/html/gone.ipynb", nil)
	c.ask(404, "GET", "nbconvert/html/.hidden.ipynb", nil)
	c.ask(403, "GET", "nbconvert/html/a%20[b].ipynb", nil, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
	c.write("bad.ipynb", "{")
	c.ask(400, "GET", "nbconvert/html/bad.ipynb", nil)
}

func TestWithoutNbconvertAnExportSaysWhatIsMissing(t *testing.T) {
	prefix := t.TempDir()
	lay(t, prefix+"/bin/python3", "#!/bin/sh\nexit 1\n")
	if err := os.Chmod(prefix+"/bin/python3", 0o755); err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	c.server.converters.pythons = []string{prefix + "/bin/python3", "/no/python"}
	c.ask(201, "PUT", "api/contents/a.ipynb", save(book()))
	if m := c.ask(200, "GET", "api/nbconvert", nil); len(m) != 0 {
		t.Errorf("%v", m)
	}
	if m := c.ask(422, "GET", "nbconvert/html/a.ipynb", nil); !strings.Contains(m["message"].(string), "nbconvert is missing") {
		t.Errorf("%v", m)
	}
}
