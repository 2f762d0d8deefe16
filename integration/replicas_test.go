package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/integration/harness"
)

// takeover is how soon a dead replica's work has to be somebody else's. What it
// took is printed; a test fails only at twice that, since the machine may be
// busy with other tests.
const takeover = 15 * time.Second

// A cluster is a world of several replicas on one PostgreSQL; the world's own
// daemon is the first of them.
type cluster struct {
	*world
	postgres *harness.Postgres
	wire     *harness.Wire // between the replicas and PostgreSQL
	balancer *harness.Balancer
	replicas []*harness.Daemon
}

// startCluster starts replicas at the same time on an empty database.
func startCluster(t *testing.T, s setup, replicas int) *cluster {
	t.Helper()
	c := &cluster{postgres: harness.StartPostgres(t), balancer: harness.StartBalancer(t)}
	c.wire = harness.StartWire(t, c.postgres.Addr)
	s.lines = append(s.lines, "database: "+c.postgres.URL(c.wire.Addr))
	if !s.silent {
		s.source.Notify = []harness.Endpoint{c.balancer.Endpoint("eu")}
	}
	c.world = build(t, s)
	c.replicas = []*harness.Daemon{c.Daemon}
	for range replicas - 1 {
		d := harness.NewDaemon(t, c.Config)
		d.Race = c.Race
		c.replicas = append(c.replicas, d)
	}
	c.balancer.Serve(c.replicas...)
	for _, d := range c.replicas {
		d.Launch()
	}
	for _, d := range c.replicas {
		d.WaitReady()
	}
	t.Cleanup(c.keepsItsSecret)
	return c
}

// keepsItsSecret fails where the database's password is anywhere in a log.
func (c *cluster) keepsItsSecret() {
	for i, d := range c.replicas {
		if strings.Contains(d.Log(), harness.DatabasePassword) {
			c.t.Errorf("replica %d's log has the database's password", i)
		}
	}
}

var replicaField = regexp.MustCompile(`"replica":"([^"]+)"`)

// name is what a replica is called in the database, by the last start in its log.
func (c *cluster) name(d *harness.Daemon) string {
	c.t.Helper()
	var name string
	for line := range strings.Lines(d.Log()) {
		if m := replicaField.FindStringSubmatch(line); m != nil && strings.Contains(line, `"serving"`) {
			name = m[1]
		}
	}
	if name == "" {
		c.t.Fatalf("the log does not tell the replica's name")
	}
	return name
}

// byName is the replica of that name.
func (c *cluster) byName(name string) *harness.Daemon {
	c.t.Helper()
	for _, d := range c.replicas {
		if c.name(d) == name {
			return d
		}
	}
	c.t.Fatalf("no replica is called %q", name)
	return nil
}

func (c *cluster) ask(query string) string {
	c.t.Helper()
	answer, err := c.postgres.Ask(query)
	if err != nil {
		c.t.Fatalf("%s: %v", query, err)
	}
	return answer
}

// holder waits until a tag's job runs, and gives who runs it.
func (c *cluster) holder(tag string) *harness.Daemon {
	c.t.Helper()
	var name string
	harness.WaitFor(c.t, "a replica to run the job of "+tag, soon, func(context.Context) error {
		name = c.ask("SELECT replica FROM jobs WHERE state = 1 AND tag = '" + tag + "'")
		if name == "" {
			return errors.New("nobody runs it")
		}
		return nil
	})
	return c.byName(name)
}

// lead waits until a replica leads, and gives its name and lease.
func (c *cluster) lead() string {
	c.t.Helper()
	var lead string
	harness.WaitFor(c.t, "a replica to lead", soon, func(context.Context) error {
		if lead = c.ask("SELECT replica || ' ' || epoch FROM leaders"); lead == "" {
			return errors.New("nobody leads")
		}
		return nil
	})
	return lead
}

func (c *cluster) others(but *harness.Daemon) []*harness.Daemon {
	return slices.DeleteFunc(slices.Clone(c.replicas), func(d *harness.Daemon) bool { return d == but })
}

// tell posts the webhook of a push to a replica, again and again until it is accepted.
func (c *cluster) tell(d *harness.Daemon, repository, tag string, g *harness.Graph) {
	c.t.Helper()
	body := harness.PushEvent(c.reg["eu"].Addr, repository, tag, g, time.Now())
	harness.WaitFor(c.t, "the webhook to be accepted", 2*time.Minute, func(ctx context.Context) error {
		if code, answer := d.Post(ctx, "eu", body); code != http.StatusAccepted {
			return fmt.Errorf("%d: %s", code, answer)
		}
		return nil
	})
}

// settled waits until no replica has anything left to do.
func (c *cluster) settled() {
	c.t.Helper()
	harness.WaitFor(c.t, "every job to end", 2*time.Minute, func(context.Context) error {
		left, err := c.postgres.Ask("SELECT COUNT(*) FROM jobs WHERE state IN (0, 1)")
		if err != nil || left != "0" {
			return fmt.Errorf("%s jobs are left, %w", left, errors.Join(err, errors.New("not settled")))
		}
		return nil
	})
}

// Three replicas that start at the same time on an empty database make its
// schema once; pushes told to any of them by a load balancer are all proven,
// the work is shared, one of them sweeps, and a command is one more replica.
func TestReplicasShareOneJournal(t *testing.T) {
	t.Parallel()
	c := startCluster(t, setup{to: []string{"us", "ap"}, route: []string{"sweep: 5s"}}, 3)
	if twice := c.ask("SELECT version_id FROM goose_db_version GROUP BY 1 HAVING COUNT(*) > 1"); twice != "" {
		t.Errorf("migrations made more than once: %s", twice)
	}
	lead := c.lead()
	n := scaled(120, 40)
	images := c.content.Variants(n)
	for i, g := range images {
		c.push(fmt.Sprintf("team/app%d", i%8), g, fmt.Sprintf("v%d", i))
	}
	for _, destination := range []string{"us", "ap"} {
		harness.WaitForEach(t, "every push at "+destination, 2*time.Minute, n, func(ctx context.Context, i int) error {
			return c.reg[destination].Client().Has(ctx, fmt.Sprintf("team/app%d", i%8), fmt.Sprintf("v%d", i), images[i], false)
		})
	}
	c.settled()
	working := 0
	for i, d := range c.replicas {
		proven := strings.Count(d.Log(), `"proven"`)
		t.Logf("replica %d proved %d", i, proven)
		if proven > 0 {
			working++
		}
	}
	if working < 2 {
		t.Errorf("%d of 3 replicas had a part in the work", working)
	}
	leader := c.byName(c.ask("SELECT replica FROM leaders"))
	harness.WaitFor(t, "the leader to sweep", soon, func(context.Context) error {
		if !strings.Contains(leader.Log(), `"swept"`) {
			return errors.New("it has not")
		}
		return nil
	})
	for _, d := range c.others(leader) {
		// A machine so busy that a lease ends has more than one leader in turn.
		if strings.Contains(d.Log(), `"swept"`) && c.lead() == lead {
			t.Error("a replica swept that does not lead")
		}
	}
	c.commands()
	c.noFindings("slow-sweep")
}

// commands runs commands beside the replicas, with a config of their own.
func (c *cluster) commands() {
	t := c.t
	t.Helper()
	beside := harness.NewDaemon(t, c.Config) // never started
	run := func(args ...string) harness.Result {
		t.Helper()
		r := beside.Command(args...)
		if r.Code != 0 {
			t.Errorf("twinport %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		}
		return r
	}
	var status struct{ Routes []harness.RouteStatus }
	if err := json.Unmarshal([]byte(run("status", "--output", "json").Stdout), &status); err != nil || len(status.Routes) != 2 || status.Routes[0].Proven == 0 {
		t.Errorf("status: %+v, %v", status, err)
	}
	run("plan", "--exit-code")
	run("jobs", "list")
	run("pause", "prod")
	for i, d := range c.replicas {
		harness.WaitFor(t, "a pause to be everybody's", soon, func(ctx context.Context) error {
			s, err := d.Status(ctx)
			if err != nil || !s.Routes[0].Paused {
				return fmt.Errorf("replica %d: %+v, %w", i, s.Routes, errors.Join(err, errors.New("not paused")))
			}
			return nil
		})
	}
	run("resume", "prod")
	run("sync")
	run("verify")
	// A daemon whose lease has ended on a busy machine is back with its next heartbeat.
	harness.WaitFor(t, "the three daemons alone to be replicas", soon, func(context.Context) error {
		if left := c.ask("SELECT COUNT(*) FROM replicas"); left != "3" {
			return fmt.Errorf("%s replicas are left", left)
		}
		return nil
	})
}

// A replica that is killed while it copies: another takes the copy over.
func TestADeadReplicasJobsMove(t *testing.T) {
	t.Parallel()
	c := startCluster(t, setup{silent: true}, 3)
	var took []time.Duration
	for round := range scaled(3, 1) {
		tag := fmt.Sprintf("v%d", round)
		release := c.proxy["us"].Inject(harness.Fault{Match: harness.Is(http.MethodPut, harness.Upload), Hang: true})
		g := c.content.Image(harness.ImageSpec{})
		c.push("team/app", g, tag)
		c.tell(c.replicas[round%3], "team/app", tag, g)
		holder := c.holder(tag)
		was := c.name(holder)
		holder.Kill()
		killed := time.Now()
		release()
		harness.WaitFor(t, "the copy to be somebody else's", 2*time.Minute, func(context.Context) error {
			row := c.ask("SELECT state, replica FROM jobs WHERE tag = '" + tag + "' ORDER BY id DESC LIMIT 1")
			if strings.HasSuffix(row, "|"+was) || strings.HasPrefix(row, "0|") {
				return fmt.Errorf("the job is %s", row)
			}
			return nil
		})
		took = append(took, time.Since(killed))
		harness.WaitHas(t, c.us, "team/app", tag, g, soon)
		holder.Start()
	}
	slices.Sort(took)
	t.Logf("takeovers: median %s, worst %s", took[len(took)/2], took[len(took)-1])
	if worst := took[len(took)-1]; worst > 2*takeover {
		t.Errorf("a dead replica's job moved after %s, over %s", worst, takeover)
	}
	c.settled()
	c.noFindings()
}

// A replica that freezes inside the PUT of a tag for longer than its lease:
// another moves the tag on, the late PUT puts an older state in its place, and
// is corrected as soon as the frozen one goes on. What that writes to the
// journal is fenced.
func TestAFrozenReplicasLateWritesAreFenced(t *testing.T) {
	t.Parallel()
	c := startCluster(t, setup{silent: true}, 3)
	older, newer := c.content.Image(harness.ImageSpec{}), c.content.Image(harness.ImageSpec{})
	arrived, pass := make(chan struct{}), make(chan struct{})
	var first, passed sync.Once
	defer passed.Do(func() { close(pass) })
	isOld := func(r harness.Request) bool {
		return r.Method == http.MethodPut && r.Class == harness.Tag && r.Digest() == older.Digest
	}
	c.proxy["us"].Before(func(r harness.Request) {
		if !isOld(r) {
			return
		}
		held := false
		first.Do(func() { held = true })
		if held {
			close(arrived)
			<-pass
		}
	})
	landed := make(chan struct{})
	var once sync.Once
	c.proxy["us"].After(func(r harness.Request) {
		if isOld(r) {
			once.Do(func() { close(landed) })
		}
	})
	c.push("team/app", older, "prod")
	c.tell(c.replicas[0], "team/app", "prod", older)
	<-arrived
	frozen := c.holder("prod")
	if err := frozen.Process().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	c.push("team/app", newer, "prod")
	c.tell(c.others(frozen)[0], "team/app", "prod", newer)
	names := func(d digest.Digest) func(context.Context) error {
		return func(ctx context.Context) error {
			got, err := c.us.Digest(ctx, "team/app", "prod")
			if err != nil || got != d {
				return fmt.Errorf("it names %s: %w", got, errors.Join(err, errors.New("not yet")))
			}
			return nil
		}
	}
	harness.WaitFor(t, "another replica to move the tag on", soon, names(newer.Digest))
	t.Logf("moved on by another replica %s after the freeze", time.Since(stopped))
	passed.Do(func() { close(pass) })
	<-landed
	harness.WaitFor(t, "the late PUT to land", soon, names(older.Digest))
	if err := frozen.Process().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	thawed := time.Now()
	harness.WaitFor(t, "the late PUT to be corrected", soon, names(newer.Digest))
	took := time.Since(thawed)
	t.Logf("the late PUT was corrected after %s", took)
	if took > 2*takeover {
		t.Errorf("the late PUT was corrected after %s, over %s", took, takeover)
	}
	c.settled()
	if err := names(newer.Digest)(t.Context()); err != nil {
		t.Error(err)
	}
	for _, said := range []string{"the lease was lost", "the outcome of a job was not written"} {
		harness.WaitFor(t, "the frozen replica to say: "+said, soon, func(context.Context) error {
			if !strings.Contains(frozen.Log(), said) {
				return errors.New("it has not")
			}
			return nil
		})
	}
	c.noFindings("regressed")
}

// The replica that sweeps is killed: another sweeps on.
func TestAnotherReplicaLeads(t *testing.T) {
	t.Parallel()
	c := startCluster(t, setup{silent: true, route: []string{"sweep: 5s"}}, 3)
	first := c.content.Image(harness.ImageSpec{})
	c.push("team/app", first, "v1") // told by nobody
	harness.WaitHas(t, c.us, "team/app", "v1", first, soon)
	leader := c.byName(c.ask("SELECT replica FROM leaders"))
	leader.Kill()
	killed := time.Now()
	second := c.content.Image(harness.ImageSpec{})
	c.push("team/app", second, "v2")
	harness.WaitHas(t, c.us, "team/app", "v2", second, soon)
	t.Logf("swept by another replica %s after the leader's death", time.Since(killed))
	if now := c.ask("SELECT replica FROM leaders"); now == c.name(leader) {
		t.Error("the dead replica still leads")
	}
	leader.Start()
	c.settled()
	c.noFindings("slow-sweep")
}

// The database is cut off, stopped and started again: webhooks get 503 and
// replicas say that they are not ready, a copy under way goes on, nothing ends,
// and then everything is proven.
func TestTheDatabaseGoesAway(t *testing.T) {
	t.Parallel()
	c := startCluster(t, setup{silent: true}, 3)
	for _, outage := range []struct {
		name        string
		begin, over func()
	}{
		{"cut off", c.wire.Cut, c.wire.Mend},
		{"stopped", c.postgres.Stop, c.postgres.Start},
		{"crashed", c.postgres.Crash, c.postgres.Start},
	} {
		tag := strings.ReplaceAll(outage.name, " ", "-")
		uploading := make(chan struct{})
		goOn := make(chan struct{})
		var once sync.Once
		c.proxy["us"].Before(func(r harness.Request) {
			if r.Method == http.MethodPut && r.Class == harness.Upload {
				once.Do(func() { close(uploading) })
				<-goOn
			}
		})
		copied := c.content.Image(harness.ImageSpec{})
		c.push("team/"+tag, copied, "copied")
		c.tell(c.replicas[0], "team/"+tag, "copied", copied)
		<-uploading
		began := time.Now()
		outage.begin()
		told := c.content.Image(harness.ImageSpec{})
		c.push("team/"+tag, told, "told")
		body := harness.PushEvent(c.reg["eu"].Addr, "team/"+tag, "told", told, time.Now())
		for i, d := range c.replicas {
			harness.WaitFor(t, "a webhook to be refused", soon, func(ctx context.Context) error {
				if code, answer := d.Post(ctx, "eu", body); code != http.StatusServiceUnavailable {
					return fmt.Errorf("replica %d, %s: %d: %s", i, outage.name, code, answer)
				}
				return nil
			})
			if err := d.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "database") {
				t.Errorf("replica %d, %s, ready: %v", i, outage.name, err)
			}
		}
		close(goOn)
		harness.WaitFor(t, "the copy under way to go on", soon, func(ctx context.Context) error {
			for _, blob := range copied.Blobs {
				if _, err := c.us.BlobSize(ctx, "team/"+tag, blob.Digest); err != nil {
					return err
				}
			}
			return nil
		})
		outage.over()
		t.Logf("%s for %s", outage.name, time.Since(began))
		c.tell(c.replicas[1], "team/"+tag, "told", told)
		harness.WaitHas(t, c.us, "team/"+tag, "copied", copied, soon)
		harness.WaitHas(t, c.us, "team/"+tag, "told", told, soon)
		c.settled()
	}
	for i, d := range c.replicas {
		if !d.Process().Alive() {
			t.Errorf("replica %d has ended", i)
		}
	}
	c.noFindings()
}

// Load from all sides while one replica after the other is killed and
// PostgreSQL is restarted twice: every accepted push is proven, no tag ever
// goes back to an older push, and what a dead replica ran is soon somebody
// else's. TWINPORT_FIRE=10m has it go on for so long.
func TestReplicasUnderFire(t *testing.T) {
	t.Parallel()
	c := startCluster(t, setup{to: []string{"us", "ap"}, silent: true, exact: true}, 3)
	lasts := time.Duration(scaled(45, 25)) * time.Second
	if text := os.Getenv("TWINPORT_FIRE"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	const tags = 8
	over := time.Now().Add(lasts)
	histories := make([][]*harness.Graph, tags)
	watches := make([]*harness.Watch, tags)
	content := make([]*harness.Generator, tags)
	for i := range tags {
		content[i] = harness.NewGenerator(seedOf(fmt.Sprint(t.Name(), i)))
		watches[i] = harness.WatchTag(t, c.us, "team/app", fmt.Sprint("t", i), nil)
	}
	var pushing sync.WaitGroup
	for i := range tags {
		pushing.Go(func() {
			for n := 0; time.Now().Before(over); n++ {
				g := content[i].Image(harness.ImageSpec{})
				tag := fmt.Sprint("t", i)
				if err := c.eu.Push(t.Context(), "team/app", g, tag); err != nil {
					t.Errorf("push: %v", err)
					return
				}
				histories[i] = append(histories[i], g)
				body := harness.PushEvent(c.reg["eu"].Addr, "team/app", tag, g, time.Now())
				err := harness.Poll(t.Context(), 2*time.Minute, func(ctx context.Context) error {
					if code, answer := c.replicas[n%len(c.replicas)].Post(ctx, "eu", body); code != http.StatusAccepted {
						n++ // the next replica, as a balancer has it
						return fmt.Errorf("%d: %s", code, answer)
					}
					return nil
				})
				if err != nil {
					t.Errorf("a webhook was never accepted: %v", err)
					return
				}
			}
		})
	}
	var took []time.Duration
	kills, restarts := 0, 0
	for time.Now().Before(over) {
		victim := c.replicas[kills%len(c.replicas)]
		name := c.name(victim)
		victim.Kill()
		killed := time.Now()
		kills++
		harness.WaitFor(t, "the dead replica's jobs to be handed back", 2*time.Minute, func(context.Context) error {
			left, err := c.postgres.Ask("SELECT COUNT(*) FROM jobs WHERE state = 1 AND replica = '" + name + "'")
			if err != nil || left != "0" {
				return fmt.Errorf("%s jobs are still its own: %w", left, errors.Join(err, errors.New("not yet")))
			}
			return nil
		})
		took = append(took, time.Since(killed))
		victim.Start()
		if restarts < 2 && time.Until(over) < lasts*time.Duration(2-restarts)/3 {
			restarts++
			c.postgres.Stop()
			c.postgres.Start()
		}
	}
	pushing.Wait()
	ended := time.Now()
	c.settled()
	caughtUp := time.Since(ended)
	pushes := 0
	for i, pushed := range histories {
		pushes += len(pushed)
		last := pushed[len(pushed)-1]
		for _, destination := range []string{"us", "ap"} {
			if err := c.reg[destination].Client().Has(t.Context(), "team/app", fmt.Sprint("t", i), last, true); err != nil {
				t.Errorf("tag t%d at %s after %d pushes: %v", i, destination, len(pushed), err)
			}
		}
		states, err := watches[i].Stop()
		if err := errors.Join(err, harness.InOrder(states, pushed)); err != nil {
			t.Errorf("tag t%d: %v", i, err)
		}
	}
	slices.Sort(took)
	t.Logf("%d pushes in %s, %d kills, %d restarts of PostgreSQL; takeovers: median %s, worst %s; settled %s after the last push",
		pushes, lasts, kills, restarts, took[len(took)/2], took[len(took)-1], caughtUp)
	if worst := took[len(took)-1]; worst > 2*takeover {
		t.Errorf("a dead replica's jobs moved after %s, over %s", worst, takeover)
	}
	c.noFindings()
}
