package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Postgres is a PostgreSQL of the test's own, which can be restarted.
type Postgres struct {
	// Addr is host:port.
	Addr string

	t        T
	dir      string
	programs string
	as       []string // what runs a program as a user whom PostgreSQL obeys
	process  *Process
}

// skipper is what a test has beside T.
type skipper interface {
	Skipf(format string, args ...any)
}

// StartPostgres makes a cluster and starts it; a test is skipped where the
// machine has no PostgreSQL.
func StartPostgres(t T) *Postgres {
	t.Helper()
	programs, err := findPostgres()
	if err != nil {
		if s, ok := t.(skipper); ok {
			s.Skipf("%v; install Debian's postgresql", err)
		}
		t.Fatalf("%v", err)
	}
	dir, err := os.MkdirTemp("", "twinport-postgres-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &Postgres{Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), t: t, dir: dir, programs: programs}
	if os.Getuid() == 0 {
		p.own()
	}
	initdb := p.command("initdb", "-D", filepath.Join(dir, "data"), "-U", "twinport", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	if r := run(t, 2*time.Minute, dir, nil, initdb[0], initdb[1:]...); r.Code != 0 {
		t.Fatalf("initdb: %s%s", r.Stdout, r.Stderr)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- PostgreSQL, last of its log:\n%s", tail(p.log(), 2000))
		}
		if p.process.Alive() {
			p.Crash()
		}
	})
	p.Start()
	return p
}

// own gives the directory to user postgres: PostgreSQL refuses to be root.
func (p *Postgres) own() {
	p.t.Helper()
	u, err := user.Lookup("postgres")
	if err != nil {
		p.t.Fatalf("PostgreSQL does not run as root, and there is no user postgres: %v", err)
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	if uerr != nil || gerr != nil {
		p.t.Fatalf("user postgres: %v, %v", uerr, gerr)
	}
	if err := os.Chown(p.dir, uid, gid); err != nil {
		p.t.Fatalf("%v", err)
	}
	p.as = []string{"setpriv", "--reuid", u.Uid, "--regid", u.Gid, "--clear-groups", "--pdeathsig", "KILL"}
}

func findPostgres() (string, error) {
	folders, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	version := func(folder string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(folder)))
		return n
	}
	slices.SortFunc(folders, func(a, b string) int { return version(b) - version(a) })
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "initdb")); err == nil {
			return folder, nil
		}
	}
	if program, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(program), nil
	}
	return "", fmt.Errorf("no PostgreSQL found")
}

func (p *Postgres) command(program string, args ...string) []string {
	return append(append(slices.Clone(p.as), filepath.Join(p.programs, program)), args...)
}

func (p *Postgres) log() string { return filepath.Join(p.dir, "..", filepath.Base(p.dir)+".log") }

// URL is the address as twinport's config takes it, by way of addr.
func (p *Postgres) URL(addr string) string {
	return "postgres://twinport:" + DatabasePassword + "@" + addr + "/postgres?sslmode=disable"
}

// DatabasePassword is in the address, and may be nowhere else.
const DatabasePassword = "the-databases-password"

// Start starts the server and waits until it answers.
func (p *Postgres) Start() {
	p.t.Helper()
	host, port, _ := strings.Cut(p.Addr, ":")
	args := p.command("postgres", "-D", filepath.Join(p.dir, "data"), "-k", p.dir, "-p", port,
		"-c", "listen_addresses="+host, "-c", "max_connections=200")
	p.process = StartProcess(p.t, "postgres", args[0], args[1:], nil, p.log())
	p.t.Cleanup(func() { _ = os.Remove(p.log()) })
	WaitFor(p.t, "PostgreSQL", 60*time.Second, func(context.Context) error {
		if !p.process.Alive() {
			p.t.Fatalf("PostgreSQL ended: %s", tail(p.log(), 2000))
		}
		_, err := p.Ask("SELECT 1")
		return err
	})
}

// Stop ends the server as an operator does: connections are cut.
func (p *Postgres) Stop() {
	p.t.Helper()
	p.end(syscall.SIGINT)
}

// Crash ends it without writing anything more.
func (p *Postgres) Crash() {
	p.t.Helper()
	p.end(syscall.SIGQUIT)
}

func (p *Postgres) end(s os.Signal) {
	p.t.Helper()
	if err := p.process.Signal(s); err != nil {
		p.t.Fatalf("end PostgreSQL: %v", err)
	}
	if _, err := p.process.Wait(30 * time.Second); err != nil {
		p.t.Fatalf("end PostgreSQL: %v", err)
	}
}

// Ask asks the database itself; rows come as lines, columns parted by "|".
func (p *Postgres) Ask(query string) (string, error) {
	host, port, _ := strings.Cut(p.Addr, ":")
	r := run(p.t, 30*time.Second, "/", nil, filepath.Join(p.programs, "psql"),
		"-h", host, "-p", port, "-U", "twinport", "-d", "postgres", "-AtXc", query)
	if r.Code != 0 {
		return "", fmt.Errorf("psql: %s", strings.TrimSpace(r.Stderr))
	}
	return strings.TrimSpace(r.Stdout), nil
}
