package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/twinport/twinport/integration/harness"
)

// An evil registry gives one hostile answer per repository: all below
// /v2/case/NAME/ is the case's.
type evil struct {
	*httptest.Server
	cases map[string]http.HandlerFunc
}

func startEvil(t *testing.T, cases map[string]http.HandlerFunc) *evil {
	e := &evil{cases: cases}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.CloseClientConnections)
	t.Cleanup(e.Close)
	return e
}

func (e *evil) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/case/"), "/")
	switch h := e.cases[name]; {
	case r.URL.Path == "/v2/":
	case h == nil || strings.Contains(r.URL.Path, "/referrers/"):
		w.WriteHeader(http.StatusNotFound)
	default:
		h(w, r)
	}
}

// document is a manifest with its media type, served under its digest and any tag.
type document struct{ mediaType, text string }

func (d document) digest() digest.Digest { return digest.FromString(d.text) }

func (d document) desc() string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, d.mediaType, d.digest(), len(d.text))
}

func image(fields string) document {
	return document{v1.MediaTypeImageManifest, `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `"` + fields + `}`}
}

func index(children ...document) document {
	descs := make([]string, len(children))
	for i, c := range children {
		descs[i] = c.desc()
	}
	return document{v1.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[` + strings.Join(descs, ",") + `]}`}
}

// serves gives documents by digest, the first also by tag.
func serves(blob http.HandlerFunc, documents ...document) http.HandlerFunc {
	by := make(map[string]document, len(documents))
	for _, d := range documents {
		by[d.digest().String()] = d
	}
	return func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		reference := parts[len(parts)-1]
		if parts[len(parts)-2] == "blobs" {
			if blob == nil {
				blob = http.NotFound
			}
			blob(w, r)
			return
		}
		d, ok := by[reference]
		if !ok && !strings.HasPrefix(reference, "sha256-") && !strings.Contains(reference, ":") {
			d, ok = documents[0], true
		}
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", d.mediaType)
		w.Header().Set("Content-Length", fmt.Sprint(len(d.text)))
		w.Header().Set("Docker-Content-Digest", d.digest().String())
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, d.text)
		}
	}
}

// tide writes until the other side has had enough, at most 1 GiB.
func tide(begin, piece string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		if r.Method == http.MethodHead {
			return
		}
		_, _ = io.WriteString(w, begin)
		chunk := strings.Repeat(piece, 64<<10/len(piece))
		for range 1 << 30 / len(chunk) {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}
}

func answers(header map[string]string, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		if r.Method != http.MethodHead {
			_, _ = io.WriteString(w, body)
		}
	}
}

func sends(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// rawly answers beneath HTTP and hangs up.
func rawly(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	}
}

const noDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// nested is an image below n indexes, all of them, the outermost first.
func nested(n int) []document {
	all := []document{image(``)}
	for range n {
		all = append(all, index(all[len(all)-1]))
	}
	slices.Reverse(all)
	return all
}

// forest is a root over n indexes of n images each, of which each has pad more.
func forest(n int, pad string) []document {
	var indexes, all []document
	for i := range n {
		var images []document
		for j := range n {
			images = append(images, image(fmt.Sprintf(`,"annotations":{"n":"%d.%d%s"}`, i, j, pad)))
		}
		indexes = append(indexes, index(images...))
		all = append(append(all, images...), indexes[i])
	}
	return append([]document{index(indexes...)}, all...)
}

// TestHostileRegistries: the real daemon meets one hostile answer per
// repository, all at the same time. Each is refused with an error of its kind,
// nothing of it gets a tag at the destination, memory stays below 200 MiB, and
// a good route is served as if nothing were.
func TestHostileRegistries(t *testing.T) {
	const mib = 1 << 20
	layers := 0
	blobOf := func(size string, blob http.HandlerFunc) http.HandlerFunc {
		layers++
		return serves(blob, image(fmt.Sprintf(`,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%064x","size":%s}]`, layers, size)))
	}
	// A graph that is much larger than what is held of one.
	var heavy []document
	for i := range 30 {
		heavy = append(heavy, image(fmt.Sprintf(`,"annotations":{"%d":%q}`, i, strings.Repeat("x", 4*mib-200))))
	}
	var descs strings.Builder
	for i := range 25_000 {
		fmt.Fprintf(&descs, `{"digest":"sha256:%064x","size":1},`, i)
	}
	broad := document{v1.MediaTypeImageIndex, `{"manifests":[` + strings.TrimSuffix(descs.String(), ",") + `]}`}
	many := forest(101, "")
	deep := nested(12)
	hostile, expected := map[string]http.HandlerFunc{}, map[string][]string{}
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		kinds []string
	}{
		"manifest-without-end":  {tide("", "x"), []string{"too-large"}},
		"values-without-end":    {tide(`{"manifests":[`, `{},`), []string{"too-large"}},
		"million-values":        {answers(map[string]string{"Content-Type": v1.MediaTypeImageIndex}, `{"manifests":[`+strings.Repeat(`{},`, mib)+`{}]}`), []string{"too-large"}},
		"depth":                 {answers(map[string]string{"Content-Type": v1.MediaTypeImageIndex}, `{"a":`+strings.Repeat("[", 200_000)+strings.Repeat("]", 200_000)+`}`), []string{"invalid"}},
		"broad-index":           {serves(nil, broad), []string{"invalid"}},
		"many-manifests":        {serves(nil, many...), []string{"invalid"}},
		"deep-index":            {serves(nil, deep...), []string{"invalid"}},
		"heavy-graph":           {serves(nil, append([]document{index(heavy...)}, heavy...)...), []string{"invalid"}},
		"digest-of-a-path":      {serves(nil, image(`,"layers":[{"digest":"sha256:../../../etc/passwd","size":1}]`)), []string{"invalid"}},
		"digest-strange":        {serves(nil, image(`,"layers":[{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1}]`)), []string{"invalid"}},
		"negative-size":         {blobOf("-1", nil), []string{"invalid"}},
		"largest-size":          {blobOf("9223372036854775807", answers(nil, "x")), []string{"invalid"}},
		"size-of-terabytes":     {blobOf("17592186044416", answers(nil, "x")), []string{"mismatch"}},
		"blob-without-end":      {blobOf("1000", tide("", "x")), []string{"mismatch"}},
		"blob-in-gzip":          {blobOf("1000", answers(map[string]string{"Content-Encoding": "gzip"}, "x")), []string{"invalid"}},
		"blob-of-other-content": {blobOf("5", answers(nil, "wrong")), []string{"mismatch"}},
		"blob-at-metadata":      {blobOf("5", sends("http://169.254.169.254/latest/meta-data/")), []string{"denied"}},
		"blob-at-loopback-name": {blobOf("5", sends("https://localhost/")), []string{"denied"}},
		"blob-in-a-file":        {blobOf("5", sends("file:///etc/passwd")), []string{"invalid"}},
		"blob-in-a-circle":      {blobOf("5", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }), []string{"invalid"}},
		"html":                  {answers(map[string]string{"Content-Type": "text/html"}, "<html>"), []string{"invalid", "unsupported"}},
		"digest-lies":           {answers(map[string]string{"Content-Type": v1.MediaTypeImageManifest, "Docker-Content-Digest": noDigest}, "{}"), []string{"mismatch"}},
		"length-lies":           {rawly("HTTP/1.1 200 OK\r\nContent-Type: " + v1.MediaTypeImageManifest + "\r\nContent-Length: 4000000\r\n\r\n{}"), []string{"interrupted"}},
		"length-of-exabytes":    {rawly("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n{}"), []string{"interrupted"}},
		"header-flood":          {rawly("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Flood: "+strings.Repeat("x", 1000)+"\r\n", 2000) + "\r\n"), []string{"interrupted"}},
		"error-without-end": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			tide(`{"errors":[{"message":"`, "x")(w, r)
		}, []string{"denied"}},
		"forged-log-lines": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"a\n{\"level\":\"info\",\"msg\":\"forged\"}\u001b[2J"}]}`)
		}, []string{"denied"}},
	} {
		hostile[name] = c.serve
		expected[name] = c.kinds
	}
	e := startEvil(t, hostile)
	token := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			tide(`{"token":"`, "x")(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer token.Close()
	realm := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://169.254.169.254/token",service="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer realm.Close()
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3153600000")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	defer busy.Close()

	w := build(t, setup{exact: true, route: []string{"sweep: never", `repositories: {include: ["team/**"]}`}})
	// What is a registry's own, whatever the repository, is each one's alone.
	alone := map[string]*httptest.Server{"token": token, "realm": realm, "busy": busy}
	for name, server := range map[string]*httptest.Server{"evil": e.Server, "token": token, "realm": realm, "busy": busy} {
		addr := strings.TrimPrefix(server.URL, "http://")
		w.Config.Registries = append(w.Config.Registries, harness.RegistryConfig{Name: name, Addr: addr})
		w.Config.Routes = append(w.Config.Routes, harness.RouteConfig{Name: name, From: name, To: []string{"us"}, Lines: []string{"sweep: never", `rename: "from-` + name + `/{repository}"`}})
	}
	w.WriteConfig()
	w.Start()
	for name := range hostile {
		w.claim("evil", "case/"+name)
	}
	for name := range alone {
		w.claim(name, "case/"+name)
	}
	expected["token"], expected["realm"], expected["busy"] = []string{"too-large"}, []string{"denied"}, []string{"throttled"}

	// Beside all that.
	good := w.content.Image(harness.ImageSpec{})
	w.push("team/good", good, "v1")
	harness.WaitHas(t, w.us, "team/good", "v1", good, time.Minute)

	at := func(name string) string {
		if alone[name] != nil {
			return "from-" + name + "/case/" + name
		}
		return "from-evil/case/" + name
	}
	for name, kinds := range expected {
		harness.WaitFor(t, "the refusal of "+name, 2*time.Minute, func(ctx context.Context) error {
			jobs, err := w.Jobs(ctx, "repository="+at(name))
			if err != nil {
				return err
			}
			if len(jobs) != 1 || jobs[0].Error == nil {
				return fmt.Errorf("jobs %+v", jobs)
			}
			if !slices.Contains(kinds, jobs[0].Error.Kind) {
				return fmt.Errorf("error %+v, want one of %v", *jobs[0].Error, kinds)
			}
			if m := jobs[0].Error.Message; len(m) > 2000 || strings.ContainsAny(m, "\n\x1b") {
				t.Errorf("%s: unfit to be shown: %q", name, m)
			}
			return nil
		})
		if _, err := w.us.Digest(t.Context(), at(name), "v1"); err == nil {
			t.Errorf("%s got a tag", name)
		}
	}
	for line := range strings.Lines(w.Log()) {
		if !strings.HasPrefix(line, "{") || strings.Contains(line, "\x1b") || strings.HasPrefix(line, `{"level":"info","msg":"forged"`) {
			t.Errorf("log line %.300q", line)
		}
	}
	again := w.content.Image(harness.ImageSpec{})
	w.push("team/good", again, "v2")
	harness.WaitHas(t, w.us, "team/good", "v2", again, time.Minute)
	w.below(200 << 20)
}

// claim sends a webhook for a push that nobody made; of what, it does not say.
func (w *world) claim(registry, repository string) {
	w.t.Helper()
	body := fmt.Sprintf(`{"events":[{"id":%q,"action":"push","timestamp":%q,"target":{"mediaType":%q,"repository":%q,"tag":"v1"}}]}`,
		repository, time.Now().UTC().Format(time.RFC3339Nano), v1.MediaTypeImageManifest, repository)
	if code, answer := w.Post(w.t.Context(), registry, []byte(body)); code != http.StatusAccepted || !strings.Contains(answer, `"accepted":1`) {
		w.t.Errorf("webhook of %s: %d %s", repository, code, answer)
	}
}

// TestHostileLists: sweeps of registries whose lists never end, or lie, end
// with an error, delete and create nothing, and take little memory.
func TestHostileLists(t *testing.T) {
	const mib = 1 << 20
	pages := func(field string) http.HandlerFunc {
		n := 0
		return func(w http.ResponseWriter, r *http.Request) {
			n++
			w.Header().Set("Link", fmt.Sprintf(`<%s?last=%d>; rel="next"`, r.URL.Path, n))
			fmt.Fprintf(w, `{"%s":["same"]}`, field)
		}
	}
	for name, c := range map[string]struct{ catalog, tags http.HandlerFunc }{
		"catalog without end":       {tide(`{"repositories":[`, `"team/a",`), nil},
		"catalog of a million":      {answers(nil, `{"repositories":[`+strings.Repeat(`"a",`, 3*mib)+`"a"]}`), nil},
		"catalog that stands still": {pages("repositories"), nil},
		"catalog of path tricks":    {answers(nil, `{"repositories":["../../etc","a/../b","UPPER","a\u0000b","/abs"]}`), answers(nil, `{"tags":[]}`)},
		"tags without end":          {answers(nil, `{"repositories":["team/a"]}`), tide(`{"tags":[`, `"a",`)},
		"tags that stand still":     {answers(nil, `{"repositories":["team/a"]}`), pages("tags")},
		"a Link to the metadata":    {answers(map[string]string{"Link": `<http://169.254.169.254/>; rel="next"`}, `{"repositories":[]}`), nil},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/v2/":
				case r.URL.Path == "/v2/_catalog":
					c.catalog(w, r)
				case strings.HasSuffix(r.URL.Path, "/tags/list") && c.tags != nil:
					c.tags(w, r)
				default:
					w.WriteHeader(http.StatusForbidden) // each tag's digest: the first noes end the sweep
				}
			}))
			defer server.Close()
			w := build(t, setup{exact: true, silent: true})
			w.Config.Registries[0].Addr = strings.TrimPrefix(server.URL, "http://")
			w.WriteConfig()
			w.Start()
			result := w.Command("sync", "--retry-for", "1s", "--output", "json")
			if name == "catalog of path tricks" {
				if result.Code != 0 && result.Code != 1 {
					t.Errorf("exit %d", result.Code)
				}
			} else if result.Code != 1 {
				t.Errorf("exit %d: %s%s", result.Code, result.Stdout, result.Stderr)
			}
			if repositories, err := w.us.Repositories(t.Context()); err != nil || len(repositories) != 0 {
				t.Errorf("the destination has %v, %v", repositories, err)
			}
			w.below(200 * mib)
		})
	}
}
