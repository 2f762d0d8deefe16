package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/journal"
)

var (
	scaleTags = flag.String("scale", "1000,10000", "`numbers` of tags for BenchmarkScale")
	// asTwinport makes the test binary the product: the benchmark measures a
	// process of its own.
	asTwinport = "TWINPORT_TEST_BE_TWINPORT"
)

func TestMain(m *testing.M) {
	if os.Getenv(asTwinport) != "" {
		os.Exit(run(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// perRepository is how many tags each generated repository has.
const perRepository = 1000

// A vast registry has any number of tags, and holds none of them: each is made
// when it is asked for. Listings are pages of 1,000, as distribution gives them.
type vast struct {
	tags     int
	empty    bool // it has no repository
	requests atomic.Int64

	mu     sync.Mutex
	digest map[int]map[digest.Digest]int // of the repositories last asked for by digest
}

// manifest is the image a tag names: its own, and tiny.
func (v *vast) manifest(i int) []byte {
	config := digest.FromString("config")
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":6},"layers":[],"annotations":{"n":"%d"}}`, config, i)
}

func (v *vast) named(i int) digest.Digest { return digest.FromBytes(v.manifest(i)) }

// find gives the tag of a repository that names a digest.
func (v *vast) find(repo int, d digest.Digest) (i int, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	known := v.digest[repo]
	if known == nil {
		if v.digest == nil || len(v.digest) > 64 {
			v.digest = make(map[int]map[digest.Digest]int)
		}
		known = make(map[digest.Digest]int, perRepository)
		for i := repo * perRepository; i < min((repo+1)*perRepository, v.tags); i++ {
			known[v.named(i)] = i
		}
		v.digest[repo] = known
	}
	i, ok = known[d]
	return i, ok
}

func repositoryName(i int) string { return fmt.Sprintf("team/app%06d", i) }

func tagName(i int) string { return fmt.Sprintf("v%04d", i) }

// page writes the names after `last` among n, at most 1,000 of them.
func page(w http.ResponseWriter, r *http.Request, key, extra string, n int, name func(int) string) {
	from := 0
	if last := r.URL.Query().Get("last"); last != "" {
		digits := strings.TrimLeft(last, "abcdefghijklmnopqrstuvwxyz/")
		at, _ := strconv.Atoi(digits)
		from = at + 1
	}
	to := min(from+1000, n)
	names := make([]string, 0, max(to-from, 0))
	for i := from; i < to; i++ {
		names = append(names, name(i))
	}
	if to < n {
		w.Header().Set("Link", fmt.Sprintf(`<%s?n=1000&last=%s>; rel="next"`, r.URL.Path, name(to-1)))
	}
	w.Header().Set("Content-Type", "application/json")
	body, _ := json.Marshal(names)
	fmt.Fprintf(w, `{%s%q:%s}`, extra, key, body)
}

func (v *vast) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.requests.Add(1)
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	repositories := (v.tags + perRepository - 1) / perRepository
	if v.empty {
		repositories = 0
	}
	var repo int
	rest := ""
	if after, ok := strings.CutPrefix(path, "team/app"); ok && len(after) > 6 {
		repo, _ = strconv.Atoi(after[:6])
		rest = after[7:]
	}
	switch {
	case path == "":
	case path == "_catalog":
		page(w, r, "repositories", "", repositories, repositoryName)
	case rest == "tags/list" && repo < repositories:
		n := min(perRepository, v.tags-repo*perRepository)
		page(w, r, "tags", fmt.Sprintf(`"name":%q,`, repositoryName(repo)), n, tagName)
	case strings.HasPrefix(rest, "manifests/v") && repo < repositories:
		i, _ := strconv.Atoi(strings.TrimPrefix(rest, "manifests/v"))
		v.give(w, r, repo*perRepository+i)
	case strings.HasPrefix(rest, "manifests/sha256:") && repo < repositories:
		i, ok := v.find(repo, digest.Digest(strings.TrimPrefix(rest, "manifests/")))
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		v.give(w, r, i)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"NAME_UNKNOWN"}]}`)
	}
}

func (v *vast) give(w http.ResponseWriter, r *http.Request, i int) {
	body := v.manifest(i)
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// A scaled is what one command took.
type scaled struct {
	command  string
	tags     int
	took     time.Duration
	cpu      time.Duration // of the command alone, whatever else the machine does
	requests int64
	peak     int64 // resident bytes
}

// BenchmarkScale measures whole commands, each a process of its own, between
// registries of many tags that exist only as they are asked for: a plan and a
// sweep where all is in sync and on record, and a plan of a first pass.
func BenchmarkScale(b *testing.B) {
	var all []scaled
	for _, text := range strings.Split(*scaleTags, ",") {
		tags, err := strconv.Atoi(text)
		if err != nil || tags < 1 {
			b.Fatalf("-scale %q: no number of tags", *scaleTags)
		}
		w := newScaleWorld(b, tags, false)
		for _, c := range [][]string{{"plan"}, {"sync"}} {
			all = append(all, w.measure(b, c[0]+", in sync", c...))
		}
		first := newScaleWorld(b, tags, true)
		all = append(all, first.measure(b, "plan, first pass", "plan", "--output", "json"))
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "tags\tcommand\tseconds\tCPU µs/tag\trequests\trequests/tag\tpeak RSS, MiB\t")
	for _, s := range all {
		if s.took == 0 { // left out by -bench
			continue
		}
		fmt.Fprintf(t, "%d\t%s\t%.2f\t%.1f\t%d\t%.4f\t%.1f\t\n", s.tags, s.command, s.took.Seconds(),
			float64(s.cpu.Microseconds())/float64(s.tags), s.requests, float64(s.requests)/float64(s.tags), float64(s.peak)/(1<<20))
	}
	if err := t.Flush(); err != nil {
		b.Fatal(err)
	}
}

// A scaleWorld is two vast registries and a config that joins them.
type scaleWorld struct {
	eu, us *vast
	dir    string
	tags   int
}

func newScaleWorld(b *testing.B, tags int, empty bool) *scaleWorld {
	b.Helper()
	w := &scaleWorld{eu: &vast{tags: tags}, us: &vast{tags: tags, empty: empty}, dir: b.TempDir(), tags: tags}
	hosts := make(map[string]string)
	for name, v := range map[string]*vast{"eu": w.eu, "us": w.us} {
		server := httptest.NewServer(v)
		b.Cleanup(server.Close)
		hosts[name] = strings.TrimPrefix(server.URL, "http://")
	}
	config := fmt.Sprintf(`data: %s
registries:
  eu: {kind: oci, address: %s, plainHTTP: true, auth: {anonymous: true}, limits: {connections: 64}}
  us: {kind: oci, address: %s, plainHTTP: true, auth: {anonymous: true}, limits: {connections: 64}}
routes:
  - {name: prod, from: eu, to: [us]}
`, filepath.Join(w.dir, "data"), hosts["eu"], hosts["us"])
	if err := os.WriteFile(filepath.Join(w.dir, "twinport.yaml"), []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	if !empty {
		w.prove(b, "oci://"+hosts["eu"], "oci://"+hosts["us"])
	}
	return w
}

// prove puts a fresh record of every tag into the journal.
func (w *scaleWorld) prove(b *testing.B, eu, us string) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	dir := filepath.Join(w.dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	j, err := journal.Open(ctx, journal.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	now := time.Now()
	records := make([]replicator.Record, 0, perRepository)
	for i := 0; i < w.tags; i += perRepository {
		repository := repositoryName(i / perRepository)
		records = records[:0]
		for n := range min(perRepository, w.tags-i) {
			records = append(records, replicator.Record{
				Destination: replicator.Place{Registry: "us", Identity: us, Repository: repository},
				Source:      replicator.Place{Registry: "eu", Identity: eu, Repository: repository},
				Tag:         tagName(n), Digest: w.eu.named(i + n), Route: "prod",
				PushedAt: now, ProvenAt: now, ReferrersAt: now, Wrote: true, Bytes: 1000,
			})
		}
		if err := j.SaveRecords(ctx, records); err != nil {
			b.Fatal(err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

// measure runs a command in a process of its own.
func (w *scaleWorld) measure(b *testing.B, name string, args ...string) scaled {
	b.Helper()
	s := scaled{command: name, tags: w.tags}
	b.Run(fmt.Sprintf("%s/tags=%d", strings.ReplaceAll(name, ", ", "-"), w.tags), func(b *testing.B) {
		for range b.N {
			before := w.eu.requests.Load() + w.us.requests.Load()
			cmd := exec.CommandContext(b.Context(), os.Args[0], append(args, "--config", filepath.Join(w.dir, "twinport.yaml"))...)
			cmd.Env = append(os.Environ(), asTwinport+"=1")
			var fault bytes.Buffer
			cmd.Stdout, cmd.Stderr = io.Discard, &fault
			began := time.Now()
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			peak := make(chan int64, 1)
			exited := make(chan struct{})
			go func() { peak <- residentPeak(cmd.Process.Pid, exited) }()
			err := cmd.Wait()
			s.took = time.Since(began)
			s.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			close(exited)
			s.peak = <-peak
			if err != nil {
				b.Fatalf("%v: %v: %s", args, err, fault.Bytes())
			}
			s.requests = w.eu.requests.Load() + w.us.requests.Load() - before
		}
		b.ReportMetric(float64(s.requests)/float64(w.tags), "requests/tag")
		b.ReportMetric(float64(s.peak)/(1<<20), "peak-MiB")
		b.ReportMetric(float64(s.cpu.Nanoseconds())/float64(w.tags), "cpu-ns/tag")
	})
	return s
}

// residentPeak watches a process's peak of resident memory until it ends: its
// own, where the resource usage of a child would count its parent's.
func residentPeak(pid int, exited <-chan struct{}) (peak int64) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-exited:
			return peak
		case <-ticker.C:
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(status), "\n") {
			var kib int64
			if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
				peak = max(peak, kib<<10)
			}
		}
	}
}
