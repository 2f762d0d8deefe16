package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"golang.org/x/sys/unix"
)

// ErrUnavailable says that the database of several replicas does not answer, or
// cannot write now. Whether a write under way was made is open; ask again.
var ErrUnavailable = errors.New("the database is not available")

var errDatabaseURL = errors.New("the database's address cannot be read: write it as postgres://USER:PASSWORD@HOST:5432/NAME")

const (
	connectTime = 5 * time.Second
	// readTime bounds one read, so that none waits for a network that swallows
	// what is sent.
	readTime = 15 * time.Second
	// turnTime is how long a write waits for its turn: longer than a replica
	// that froze in the middle of its own can hold it (idleInTurn).
	turnTime   = 8 * time.Second
	idleInTurn = 4 * time.Second
	// silence is after how long a connection whose other end is gone breaks.
	silence = 10 * time.Second
)

// A postgres is how to reach the database. Its errors name no password: the
// driver's words about an address that cannot be read are never passed on.
type postgres struct {
	address func() (string, error)
	config  *pgx.ConnConfig
	key     int64  // of the advisory lock that writers take turns by
	name    string // of the notifications' channel
}

func newPostgres(address func() (string, error)) (*postgres, error) {
	config, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTime
	}
	if config.ValidateConnect == nil {
		// Of several hosts the one that writes: the others follow it.
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: silence / 2, Interval: silence / 4, Count: 2,
	}, ControlContext: giveUpOnSilence}
	config.DialFunc = dialer.DialContext
	set := func(name string, value time.Duration) {
		if _, given := config.RuntimeParams[name]; !given {
			config.RuntimeParams[name] = strconv.FormatInt(value.Milliseconds(), 10)
		}
	}
	set("lock_timeout", turnTime)
	set("idle_in_transaction_session_timeout", idleInTurn)
	set("statement_timeout", transactionTime)
	// Every statement has its index. Without this, plans made while a table was
	// small would read it whole for as long as nobody analyzes it.
	config.RuntimeParams["enable_seqscan"], config.RuntimeParams["jit"] = "off", "off"
	if _, given := config.RuntimeParams["application_name"]; !given {
		config.RuntimeParams["application_name"] = "twinport"
	}
	return &postgres{address: address, config: config}, nil
}

func parseAddress(address func() (string, error)) (*pgx.ConnConfig, error) {
	text, err := address()
	if err != nil {
		return nil, fmt.Errorf("the database's address: %w", err)
	}
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") {
		return nil, errDatabaseURL
	}
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, errDatabaseURL
	}
	return config, nil
}

// renewed puts in who we are by now: a password may have been changed since.
func (p *postgres) renewed(_ context.Context, config *pgx.ConnConfig) error {
	now, err := parseAddress(p.address)
	if err != nil {
		return err
	}
	config.User, config.Password = now.User, now.Password
	return nil
}

// connect makes a connection for writing: what it commits is durable.
func (p *postgres) connect(ctx context.Context) (*pgx.Conn, error) {
	config := p.config.Copy()
	if err := p.renewed(ctx, config); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, p.classify(err)
	}
	_, err = conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false)
		WHERE current_setting('synchronous_commit') IN ('off', 'local')`)
	if err != nil {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return nil, errors.Join(p.classify(err), conn.Close(cctx))
	}
	return conn, nil
}

// pool is for reading.
func (p *postgres) pool() *sql.DB {
	db := stdlib.OpenDB(*p.config, stdlib.OptionBeforeConnect(p.renewed), stdlib.OptionShouldPing(toPing))
	db.SetMaxOpenConns(readers)
	db.SetMaxIdleConns(readers)
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(time.Hour)
	return db
}

// patientPool is for migrations, which take as long as they take.
func (p *postgres) patientPool() *sql.DB {
	config := p.config.Copy()
	config.RuntimeParams["lock_timeout"], config.RuntimeParams["statement_timeout"] = "0", "0"
	return stdlib.OpenDB(*config, stdlib.OptionBeforeConnect(p.renewed))
}

// place makes lock and channel the schema's own: several journals may live in
// one database.
func (p *postgres) place(ctx context.Context, db queryer) error {
	var schema sql.NullString
	if _, err := one(ctx, db, `SELECT current_schema()`, nil, &schema); err != nil {
		return err
	}
	if !schema.Valid {
		return errors.New("the database's search_path names no schema that exists")
	}
	h := fnv.New64a()
	h.Write([]byte("twinport\x00" + schema.String))
	sum := h.Sum64()
	p.key, p.name = int64(sum), "twinport_"+strconv.FormatUint(sum, 36) //nolint:gosec // any 64 bits do
	return nil
}

// classify tells a database that could not be asked from one that refused, and
// of the former a connection that broke.
func (p *postgres) classify(err error) error {
	var said *pgconn.PgError
	switch {
	case err == nil, isUnavailable(err), errors.Is(err, sql.ErrNoRows):
		return err
	case errors.As(err, &said) && !passes(said.Code):
		return fmt.Errorf("database: %s (SQLSTATE %s)", clip(said.Message, 300), said.Code)
	}
	told := fmt.Errorf("%w: %s", ErrUnavailable, why(err))
	if said != nil {
		told = fmt.Errorf("%w: %s (SQLSTATE %s)", ErrUnavailable, clip(said.Message, 300), said.Code)
	}
	if isCut(err) {
		return &cutError{told}
	}
	return told
}

// isCut tells whether an error is of a connection that had been made: the
// database ends those with its last word or without one. Who asked and went
// away has cut it himself.
func isCut(err error) bool {
	var connecting *pgconn.ConnectError
	var said *pgconn.PgError
	switch {
	case errors.As(err, &connecting), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &said):
		return said.Severity == "FATAL" || said.SeverityUnlocalized == "FATAL"
	}
	return true
}

// passes tells whether a refusal is of the database's state, not of the
// statement: connections, shutdowns, a standby, locks and timeouts.
func passes(code string) bool {
	if len(code) != 5 {
		return false
	}
	switch code[:2] {
	case "08", "57":
		return true
	}
	switch code {
	case "53300", "25006", "25P03", "55P03", "40001", "40P01":
		return true
	}
	return false
}

// why is an error in words that name neither user nor password.
func why(err error) string {
	var dial *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &dial) && dial.Err != nil && dial.Addr != nil:
		return clip(dial.Op+" "+dial.Addr.String()+": "+dial.Err.Error(), 300)
	case errors.As(err, &dial):
		return clip(dial.Error(), 300)
	}
	var connecting *pgconn.ConnectError
	if errors.As(err, &connecting) {
		if inner := errors.Unwrap(connecting); inner != nil {
			return clip(inner.Error(), 300)
		}
	}
	return clip(err.Error(), 300)
}

// giveUpOnSilence has the kernel break a connection whose data nobody takes.
func giveUpOnSilence(_ context.Context, network, _ string, c syscall.RawConn) error {
	if network == "unix" || runtime.GOOS != "linux" {
		return nil
	}
	return c.Control(func(fd uintptr) {
		const tcpUserTimeout = 18 // Linux's alone, and so not in every platform's words
		// Where it is not known, the timeouts above do.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpUserTimeout, int(silence.Milliseconds()))
	})
}
