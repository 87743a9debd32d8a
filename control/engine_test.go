package control

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"quire/test"
)

// cluster is the PostgreSQL server of the tests while they run on that engine,
// nil while they run on SQLite.
var cluster *test.Postgres

// The tests run on SQLite; those in which something happens at the same time, or
// a process dies, then run on PostgreSQL too in a soak; the store's own tests always
// do. QUIRE_TEST_ENGINE=all with -run chooses others.
func TestMain(m *testing.M) { os.Exit(onEveryEngine(m)) }

const everyEngine = "InParallel|Against|CrashesAnywhere|CrashWhile|Race|OneWork"

func onEveryEngine(m *testing.M) int {
	code := m.Run()
	if shared.Postgres != nil {
		if err := shared.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		shared.Postgres = nil
	}
	only := flag.Lookup("test.run").Value
	if code != 0 || os.Getenv("QUIRE_SOAK") == "" && os.Getenv("QUIRE_TEST_ENGINE") != "all" {
		return code
	}
	if only.String() == "" {
		if err := only.Set(everyEngine); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	var err error
	if cluster, err = test.NewPostgres(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("on PostgreSQL:")
	code = m.Run()
	if err := cluster.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// shared is the PostgreSQL of the tests about several processes, whatever engine
// the others run on.
var shared struct {
	sync.Mutex
	*test.Postgres
}

func postgres(t *testing.T) string {
	t.Helper()
	if cluster != nil {
		return database(t)
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.Postgres == nil {
		var err error
		shared.Postgres, err = test.NewPostgres()
		must(t, err)
	}
	a, err := shared.Address()
	must(t, err)
	return a
}

// database is an empty one of the engine that the tests run on.
func database(t *testing.T) string {
	t.Helper()
	if cluster == nil {
		return filepath.Join(t.TempDir(), "quire.db")
	}
	a, err := cluster.Address()
	must(t, err)
	return a
}
