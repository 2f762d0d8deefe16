package journal

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal/journaltest"
)

// at gives an address as the journal asks for it.
func given(address string) func() (string, error) {
	return func() (string, error) { return address, nil }
}

// A crew is replicas of one journal, under one clock.
type crew struct {
	*testing.T
	database string
	clock    *harness
}

func newCrew(t *testing.T) *crew {
	t.Parallel()
	return &crew{T: t, database: journaltest.Database(t), clock: &harness{T: t, now: start}}
}

// join starts another replica; it stays until the test ends, or left does.
func (c *crew) join(role Role) *harness {
	c.Helper()
	dir := c.TempDir()
	return newHarness(c.T, func(testing.TB) func(func() time.Time) (*Journal, error) {
		return func(func() time.Time) (*Journal, error) {
			return Open(ctx0, Options{Dir: dir, Database: given(c.database), Role: role, Now: c.clock.clock})
		}
	})
}

// pass lets time pass in steps, at each of which some replicas show that they live.
func (c *crew) pass(d time.Duration, alive ...*harness) {
	c.Helper()
	for step := time.Second; d > 0; d -= step {
		c.clock.pass(min(d, step))
		for _, h := range alive {
			h.ok(h.Heartbeat(ctx0))
		}
	}
}

// job is a push's job, at the crew's time.
func (c *crew) job(h *harness, tag string) replicator.Job {
	j := h.pushed(tag, tag)
	j.PushedAt = c.clock.clock()
	return j
}

// claims takes what is due at the crew's time.
func (c *crew) claims(h *harness) []Claim {
	h.Helper()
	return must(h.Claim(ctx0, ClaimOptions{Max: 10, MaxForeground: 10, MaxBackground: 10, Now: c.clock.clock()}))(h)
}

func TestADeadReplicasJobsAreHandedBackAndItsWritesFenced(t *testing.T) {
	c := newCrew(t)
	dead, other := c.join(Serves), c.join(Serves)
	c.pass(2*time.Second, dead, other)
	dead.accept(c.job(dead, "v1"))
	claim := c.claims(dead)[0]
	c.pass(sharedLease-time.Second, other)
	if n := len(c.claims(other)); n != 0 {
		t.Fatalf("%d claims while the other's lease holds", n)
	}
	c.pass(3*time.Second, other)
	moved := c.claims(other)
	if len(moved) != 1 || moved[0].Jobs[0].Tag != "v1" || moved[0].Jobs[0].Attempts != 0 {
		t.Fatalf("the dead one's jobs: %+v", moved)
	}
	done := []Outcome{{ID: claim.Jobs[0].ID, Generation: 1, State: replicator.Done, Records: []replicator.Record{dead.record("v1", "v1")}}}
	if err := dead.Finish(ctx0, claim, done); !errors.Is(err, ErrFenced) {
		t.Errorf("a late finish: %v", err)
	}
	if _, err := dead.Begin(ctx0, claim, claim.Jobs[0].ID, replicator.Intent{At: "x", New: dgst("x")}); !errors.Is(err, ErrFenced) {
		t.Errorf("a late begin: %v", err)
	}
	if until := dead.ClaimUntil(claim); until.IsZero() {
		t.Error("it cannot know yet")
	}
	if err := dead.Heartbeat(ctx0); !errors.Is(err, ErrFenced) {
		t.Errorf("its next heartbeat: %v", err)
	}
	if until := dead.ClaimUntil(claim); !until.IsZero() {
		t.Errorf("the claim's lease holds until %s", until)
	}
	// It goes on under another lease.
	dead.ok(dead.Heartbeat(ctx0))
	dead.accept(c.job(dead, "v2"))
	fresh := c.claims(dead)
	if len(fresh) != 1 || fresh[0].Epoch <= claim.Epoch {
		t.Fatalf("claims after its return: %+v", fresh)
	}
	dead.finish(fresh[0], nil)
	other.finish(moved[0], nil)
	if _, known, _ := other.Record(ctx0, usID, "team/app", "v1"); known {
		t.Error("the fenced outcome left a record")
	}
}

func TestAnOutageOfTheDatabaseKillsNobody(t *testing.T) {
	c := newCrew(t)
	a, b := c.join(Serves), c.join(Serves)
	c.pass(2*time.Second, a, b)
	a.accept(c.job(a, "v1"))
	claim := c.claims(a)[0]
	c.clock.pass(time.Hour) // nobody could write
	b.ok(b.Heartbeat(ctx0))
	b.ok(b.Heartbeat(ctx0))
	a.ok(a.Heartbeat(ctx0))
	if until := a.ClaimUntil(claim); !until.After(c.clock.clock()) {
		t.Errorf("its lease holds until %s", until)
	}
	a.finish(claim, nil)
}

func TestReplicasTakeTheLeadInTurn(t *testing.T) {
	c := newCrew(t)
	command := c.join(Works)
	c.pass(time.Second, command)
	if command.Leads() {
		t.Error("a command leads")
	}
	a, b := c.join(Serves), c.join(Serves)
	c.pass(2*time.Second, a, b, command)
	if !a.Leads() || b.Leads() || command.Leads() {
		t.Fatalf("leads: %t, %t, %t", a.Leads(), b.Leads(), command.Leads())
	}
	if a.Sharers() != 3 || b.Sharers() != 3 {
		t.Errorf("sharers: %d, %d", a.Sharers(), b.Sharers())
	}
	c.pass(sharedLease+3*time.Second, b, command)
	if a.Leads() || !b.Leads() {
		t.Errorf("after its death: %t, %t", a.Leads(), b.Leads())
	}
	if n := b.Sharers(); n != 2 {
		t.Errorf("%d sharers when one is dead", n)
	}
	b.stop() // as at a shutdown
	if err := a.Heartbeat(ctx0); !errors.Is(err, ErrFenced) {
		t.Errorf("the dead one's heartbeat: %v", err)
	}
	a.ok(a.Heartbeat(ctx0))
	if !a.Leads() {
		t.Error("nobody takes the lead of one that left")
	}
}

func TestAReplicaThatLeavesLeavesItsJobs(t *testing.T) {
	c := newCrew(t)
	a, b := c.join(Serves), c.join(Serves)
	a.accept(c.job(a, "v1"))
	c.claims(a)
	a.stop()
	if n := len(c.claims(b)); n != 1 {
		t.Errorf("%d claims of what it left", n)
	}
}

func TestWhatOneReplicaLearnsTheOthersKnow(t *testing.T) {
	c := newCrew(t)
	a, b := c.join(Serves), c.join(Steers)
	a.accept(c.job(a, "v1")) // with two registries and an edge
	a.finish(c.claims(a)[0], func(o *Outcome) { o.Records = []replicator.Record{a.record("v1", "v1")} })
	if jobs := must(first(b.Jobs(ctx0, JobFilter{Route: "prod"})))(t); len(jobs) != 1 || jobs[0].Destination.Registry != "us" {
		t.Errorf("the other's jobs: %+v", jobs)
	}
	if _, known, err := b.Record(ctx0, usID, "team/app", "v1"); !known || err != nil {
		t.Errorf("the other's record: %t, %v", known, err)
	}
	b.ok(b.Distrust(ctx0, usID))
	if _, known, _ := a.Record(ctx0, usID, "team/app", "v1"); known {
		t.Error("a registry that another distrusts is believed")
	}
	a.ok(a.SaveRecords(ctx0, []replicator.Record{a.record("v1", "v1")}))
	if _, known, _ := b.Record(ctx0, usID, "team/app", "v1"); !known {
		t.Error("a record made since is not believed")
	}
	// Both make the same registry and edge at the same time.
	var both sync.WaitGroup
	for _, h := range []*harness{a, b} {
		both.Go(func() {
			job := c.job(h, "v9")
			job.Destination = at("new", "team/app")
			if _, err := h.Accept(ctx0, Intake{Jobs: []replicator.Job{job}}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if jobs := must(first(a.Jobs(ctx0, JobFilter{Tag: "v9"})))(t); len(jobs) != 1 || jobs[0].Generation != 2 {
		t.Errorf("pushed through both: %+v", jobs)
	}
}

func first[T, U any](v T, _ U, err error) (T, error) { return v, err }

func TestReplicasWakeEachOther(t *testing.T) {
	c := newCrew(t)
	a, b := c.join(Serves), c.join(Serves)
	for i := range 3 {
		// What was signaled before counts for nothing.
		select {
		case <-b.Changed():
		default:
		}
		a.accept(c.job(a, fmt.Sprint("v", i)))
		select {
		case <-b.Changed():
		case <-time.After(time.Minute):
			t.Fatal("the other was not told")
		}
	}
}

func TestMigrationsAreMadeOnceHoweverManyStart(t *testing.T) {
	t.Parallel()
	database := journaltest.Database(t)
	var starting sync.WaitGroup
	for range 8 {
		starting.Go(func() {
			j, err := Open(ctx0, Options{Dir: t.TempDir(), Database: given(database)})
			if err != nil {
				t.Error(err)
				return
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	if got := asked(t, database, "SELECT COUNT(*) FROM goose_db_version WHERE version_id > 0"); got != schemaVersion {
		t.Errorf("%d migrations were made, there are %d", got, schemaVersion)
	}
}

func asked(t *testing.T, database, query string) (n int64) {
	t.Helper()
	conn := must(pgx.Connect(ctx0, database))(t)
	defer conn.Close(ctx0)
	if err := conn.QueryRow(ctx0, query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestANewerSchemaIsRefusedAtStartAndLivedWith(t *testing.T) {
	c := newCrew(t)
	running := c.join(Serves)
	conn := must(pgx.Connect(ctx0, c.database))(t)
	defer conn.Close(ctx0)
	for _, newer := range []string{
		"INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)",
		"ALTER TABLE jobs ADD COLUMN later BIGINT NOT NULL DEFAULT 0",
		"ALTER TABLE records ADD COLUMN later BIGINT NOT NULL DEFAULT 0",
		"CREATE TABLE later (id BIGINT)",
	} {
		if _, err := conn.Exec(ctx0, newer); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(ctx0, Options{Dir: t.TempDir(), Database: given(c.database)}); !errors.Is(err, ErrNewer) {
		t.Errorf("opened: %v", err)
	}
	if _, err := OpenSharedReadOnly(ctx0, Options{Database: given(c.database)}); !errors.Is(err, ErrNewer) {
		t.Errorf("opened for reading: %v", err)
	}
	running.accept(c.job(running, "v1"))
	running.finish(c.claims(running)[0], func(o *Outcome) { o.Records = []replicator.Record{running.record("v1", "v1")} })
	if _, known, err := running.Record(ctx0, usID, "team/app", "v1"); !known || err != nil {
		t.Errorf("a replica of the version before: %t, %v", known, err)
	}
}

func TestErrorsTellNothingOfTheAddress(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-of-the-database"
	free := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	nobody := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{
		"nobody listens":    "postgres://user:" + secret + "@" + nobody + "/name",
		"no such host":      "postgres://user:" + secret + "@nowhere.invalid/name",
		"no port":           "postgres://user:" + secret + "@host:port/name",
		"not percent-coded": "postgres://user:" + secret + "%zz@host/name",
		"no URL":            "user=" + secret + " host=nowhere",
		"another scheme":    "mysql://user:" + secret + "@host/name",
		"unknown parameter": "postgres://user:" + secret + "@" + nobody + "/name?sslmode=perhaps",
	} {
		_, err := Open(ctx0, Options{Dir: t.TempDir(), Database: given(address)})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused := strings.Replace(journaltest.Server(t), "/postgres?", "/no-such-database?", 1)
	refused = strings.Replace(refused, "twinport@", "twinport:"+secret+"@", 1)
	if _, err := Open(ctx0, Options{Dir: t.TempDir(), Database: given(refused)}); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("refused by the server: %v", err)
	}
}

func TestADatabaseThatIsAwayIsSaidSo(t *testing.T) {
	c := newCrew(t)
	u := must(url.Parse(c.database))(t)
	way, cut := forward(t, u.Host)
	u.Host = way
	c.database = u.String()
	h := c.join(Serves)
	h.accept(c.job(h, "v1"))
	cut()
	if _, err := h.Accept(ctx0, Intake{Jobs: []replicator.Job{c.job(h, "v2")}}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("accept: %v", err)
	}
	if err := h.Healthy(ctx0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("healthy: %v", err)
	}
	if _, _, err := h.Jobs(ctx0, JobFilter{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("jobs: %v", err)
	}
}

// forward carries connections to an address until cut, which ends them and
// lets no more come.
func forward(t *testing.T, target string) (addr string, cut func()) {
	t.Helper()
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	var mu sync.Mutex
	var open []net.Conn
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					way[0].Close()
				}()
			}
		}
	}()
	cut = func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			c.Close()
		}
	}
	t.Cleanup(cut)
	return l.Addr().String(), cut
}

func TestTextsThatPostgreSQLDoesNotTakeAreKept(t *testing.T) {
	c := newCrew(t)
	h := c.join(Serves)
	h.accept(c.job(h, "v1"))
	h.finish(c.claims(h)[0], func(o *Outcome) {
		o.State, o.NextAttempt = replicator.Waiting, c.clock.clock()
		o.Error = &replicator.JobError{Kind: "other", Message: "a registry said \x00 and \xff\xfe"}
	})
	if got := h.live("v1").Error.Message; got != "a registry said \uFFFD and \uFFFD" {
		t.Errorf("%q", got)
	}
	if jobs, _, err := h.Jobs(ctx0, JobFilter{Repository: "a\x00b"}); err != nil || len(jobs) != 0 {
		t.Errorf("%+v, %v", jobs, err)
	}
}

func TestALateMoveIsLookedAtAgain(t *testing.T) {
	c := newCrew(t)
	h := c.join(Serves)
	h.accept(c.job(h, "v1"))
	claim := c.claims(h)[0]
	job := claim.Jobs[0]
	h.finish(claim, nil)
	f := replicator.Finding{Kind: replicator.FindingRegressed, Registry: "us"}
	h.ok(h.Late(ctx0, job, replicator.Intent{At: usID, Old: "", New: dgst("late")}, f))
	if again := h.live("v1"); again.State != replicator.Waiting || again.Lane != replicator.LaneWebhook {
		t.Errorf("%+v", again)
	}
	base := must(h.Base(ctx0, job))(t)
	if len(base.Intents) != 1 || base.Intents[0].Old != dgst("late") || base.Intents[0].At != usID {
		t.Errorf("%+v", base)
	}
}
