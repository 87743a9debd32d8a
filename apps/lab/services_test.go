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
