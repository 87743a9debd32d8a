package lab

import (
	"net/http/httptest"
	"os/exec"
	"testing"
)

// JupyterLab's own client of the API goes through all of it.
func TestTheOfficialClient(t *testing.T) {
	plainShell(t)
	c := newClient(t)
	withKernels(t, c)
	site := httptest.NewServer(c.server.handler())
	defer site.Close()
	out, err := exec.Command("node", "testdata/services.mjs", site.URL+"/p/lab/").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Two pages change one notebook: the second is told, and merges by cell.
func TestTwoPagesMergeANotebook(t *testing.T) {
	if err := BuiltIn().Missing(); err != nil {
		t.Fatal(err)
	}
	plainShell(t)
	c := newClient(t)
	withKernels(t, c)
	nb := book(code("a", "one"), code("b", "two"), code("c", "three"))
	nb["metadata"] = object{"kernelspec": object{"name": "python3", "display_name": "Python 3", "language": "python"}}
	c.ask(201, "PUT", "api/contents/shared.ipynb", save(nb))
	site := httptest.NewServer(c.server.handler())
	defer site.Close()
	out, err := exec.Command("node", "testdata/merge.mjs", site.URL+"/p/lab", c.project).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
