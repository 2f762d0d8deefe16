// Package journaltest gives tests a PostgreSQL: the one TWINPORT_TEST_DATABASE
// names, or one of their own where the machine has the programs. Only tests
// import it.
package journaltest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Address names the variable that holds the address of a database to test with.
const Address = "TWINPORT_TEST_DATABASE"

// Database gives a journal's database of the test's own: an empty schema. It
// skips the test where there is no PostgreSQL.
func Database(t testing.TB) string {
	t.Helper()
	base := Server(t)
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		t.Fatal(err)
	}
	schema := "t" + hex.EncodeToString(random[:])
	run := func(statement string) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, base)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, statement)
		return errors.Join(err, conn.Close(ctx))
	}
	if err := run("CREATE SCHEMA " + schema); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run("DROP SCHEMA " + schema + " CASCADE"); err != nil {
			t.Errorf("drop the test's schema: %v", err)
		}
	})
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal("the test database's address is no URL")
	}
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery = q.Encode()
	return u.String()
}

// Server gives the address of the test binary's PostgreSQL.
func Server(t testing.TB) string {
	t.Helper()
	running, err := server()
	if errors.Is(err, errNone) {
		t.Skipf("%v; set %s, or install Debian's postgresql", err, Address)
	}
	if err != nil {
		t.Fatal(err)
	}
	return running.address
}

// A running server; input is its keeper's, which ends with this process.
type running struct {
	address string
	input   io.Closer
}

var errNone = errors.New("no PostgreSQL found")

var server = sync.OnceValues(func() (running, error) {
	if address := os.Getenv(Address); address != "" {
		return running{address: address}, nil
	}
	programs, err := find()
	if err != nil {
		return running{}, err
	}
	return start(programs)
})

// find gives the folder of the newest PostgreSQL's programs.
func find() (string, error) {
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
	return "", errNone
}

// keeper runs a server until its own input ends, which it does with the test
// binary, however that ends; then the server's files go, too.
const keeper = `"$1/postgres" -D "$2/data" -k "$2" -p "$3" -c listen_addresses=127.0.0.1 -c fsync=on \
  -c max_connections=300 -c shared_buffers=64MB >"$2/log" 2>&1 & server=$!
cat >/dev/null
kill -INT "$server"; wait "$server"; rm -rf "$2"`

// start makes a cluster of the test binary's own, on a free port of loopback.
// As root it runs as user postgres: PostgreSQL refuses to be root.
func start(programs string) (running, error) {
	dir, err := os.MkdirTemp("", "twinport-postgres-")
	if err != nil {
		return running{}, err
	}
	as, err := identity(dir)
	if err != nil {
		return running{}, errors.Join(err, os.RemoveAll(dir))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	initdb := exec.CommandContext(ctx, filepath.Join(programs, "initdb"), "-D", filepath.Join(dir, "data"),
		"-U", "twinport", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
	initdb.SysProcAttr, initdb.Dir = as, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return running{}, errors.Join(fmt.Errorf("initdb: %w: %s", err, out), os.RemoveAll(dir))
	}
	port, err := freePort()
	if err != nil {
		return running{}, errors.Join(err, os.RemoveAll(dir))
	}
	keep := exec.Command("/bin/sh", "-c", keeper, "keeper", programs, dir, port)
	keep.SysProcAttr, keep.Dir = as, dir
	input, output, err := os.Pipe()
	if err != nil {
		return running{}, err
	}
	keep.Stdin = input
	if err := keep.Start(); err != nil {
		return running{}, errors.Join(fmt.Errorf("start PostgreSQL: %w", err), os.RemoveAll(dir))
	}
	if err := input.Close(); err != nil {
		return running{}, err
	}
	server := running{"postgres://twinport@127.0.0.1:" + port + "/postgres?sslmode=disable", output}
	return server, await(ctx, server.address, filepath.Join(dir, "log"))
}

func identity(dir string) (*syscall.SysProcAttr, error) {
	as := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() != 0 {
		return as, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("%w: it does not run as root, and there is no user postgres", errNone)
	}
	uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uerr, gerr, os.Chown(dir, int(uid), int(gid))); err != nil {
		return nil, err
	}
	as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return as, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// await asks until the server answers.
func await(ctx context.Context, address, log string) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := pgx.Connect(ctx, address)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log)
			return fmt.Errorf("PostgreSQL does not answer: %w: %s", err, strings.TrimSpace(string(said)))
		case <-ticker.C:
		}
	}
}
