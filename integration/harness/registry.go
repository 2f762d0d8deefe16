package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// An Endpoint is where a registry sends its notifications.
type Endpoint struct {
	URL string
	// Authorization is sent as that header, none where empty.
	Authorization string
	// Everything asks for blob and pull events too, which are ignored otherwise.
	Everything bool
}

// RegistryOptions say how a registry differs from an open one with deletes.
type RegistryOptions struct {
	Username, Password string // htpasswd where not empty
	Notify             []Endpoint
	// ForeignLayers allows layers that name URLs.
	ForeignLayers bool
	// ReadOnly refuses every write.
	ReadOnly bool
	// NoDelete leaves deletes off, as distribution does unless told otherwise.
	NoDelete bool
	// OnDisk keeps the storage on disk: for gigabytes.
	OnDisk bool
	// More is what else stands in its config, at the top level.
	More string
}

// A Dist is a real CNCF distribution registry with filesystem storage, in
// memory where there is room.
type Dist struct {
	// Name is for logs; Addr is host:port and stays over restarts.
	Name, Addr string
	// Dir holds config, log and storage.
	Dir string

	t       T
	opts    RegistryOptions
	process *Process
	client  *Client
}

// StartRegistry starts a registry and waits until it answers.
func StartRegistry(t T, name string, opts RegistryOptions) *Dist {
	t.Helper()
	r := &Dist{Name: name, Addr: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), t: t, opts: opts}
	if opts.OnDisk {
		r.Dir = filepath.Join(t.TempDir(), name)
	} else {
		r.Dir = quickDir(t, name)
	}
	if err := os.MkdirAll(r.root(), 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	r.client = NewClient(r.Addr)
	r.client.Username, r.client.Password = opts.Username, opts.Password
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- registry %s (%s), last of its log:\n%s", name, r.Addr, tail(r.log(), 2000))
		}
	})
	r.Start()
	return r
}

// Client talks to the registry directly, past any proxy.
func (r *Dist) Client() *Client { return r.client }

// Notify replaces the registry's notification endpoints; it takes effect at the next Start.
func (r *Dist) Notify(endpoints ...Endpoint) { r.opts.Notify = endpoints }

// Options lets a test change options; they take effect at the next Start.
func (r *Dist) Options() *RegistryOptions { return &r.opts }

// root is the storage driver's directory, storage what distribution keeps below it.
func (r *Dist) root() string    { return filepath.Join(r.Dir, "storage") }
func (r *Dist) storage() string { return filepath.Join(r.root(), "docker", "registry", "v2") }
func (r *Dist) log() string     { return filepath.Join(r.Dir, "registry.log") }

// Start starts the registry again at its address.
func (r *Dist) Start() {
	r.t.Helper()
	config := filepath.Join(r.Dir, "config.yaml")
	if err := os.WriteFile(config, []byte(r.config()), 0o644); err != nil {
		r.t.Fatalf("%v", err)
	}
	r.process = StartProcess(r.t, "registry "+r.Name, mustBinary(r.t, Registry), []string{"serve", config},
		[]string{"OTEL_TRACES_EXPORTER=none", "GOMAXPROCS=2"}, r.log())
	WaitFor(r.t, "registry "+r.Name, 30*time.Second, func(ctx context.Context) error {
		if !r.process.Alive() {
			r.t.Fatalf("registry %s ended: %s", r.Name, tail(r.log(), 2000))
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Addr+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := r.client.http.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
			return fmt.Errorf("answers %s", resp.Status)
		}
		return nil
	})
}

// Stop kills the registry; notifications it had not sent are lost, as in life.
func (r *Dist) Stop() {
	r.process.Kill()
	r.client.http.CloseIdleConnections()
}

// Freeze stops the registry's process (SIGSTOP): connections are accepted by
// the kernel and never answered. Thaw ends that.
func (r *Dist) Freeze() error { return r.process.Signal(syscall.SIGSTOP) }

// Thaw lets a frozen registry go on.
func (r *Dist) Thaw() error { return r.process.Signal(syscall.SIGCONT) }

// Wipe stops the registry, removes all it holds and starts it again, empty.
func (r *Dist) Wipe() {
	r.t.Helper()
	r.Stop()
	if err := os.RemoveAll(r.root()); err != nil {
		r.t.Fatalf("wipe %s: %v", r.Name, err)
	}
	if err := os.MkdirAll(r.root(), 0o755); err != nil {
		r.t.Fatalf("%v", err)
	}
	r.client.Forget()
	r.Start()
}

// Sessions counts the uploads that were begun and neither ended nor cancelled.
func (r *Dist) Sessions() int {
	r.t.Helper()
	n := 0
	err := filepath.WalkDir(r.storage(), func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Name() == "startedat" && strings.Contains(path, "_uploads") {
			n++
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	if err != nil {
		r.t.Fatalf("count uploads: %v", err)
	}
	return n
}

// BlobPath is the file that holds a blob, "sha256:…".
func (r *Dist) BlobPath(digest string) string {
	algorithm, hex, _ := strings.Cut(digest, ":")
	return filepath.Join(r.storage(), "blobs", algorithm, hex[:2], hex, "data")
}

// RemoveBlob takes a blob's bytes out of the storage, behind the registry's back.
func (r *Dist) RemoveBlob(digest string) {
	r.t.Helper()
	if err := os.RemoveAll(filepath.Dir(r.BlobPath(digest))); err != nil {
		r.t.Fatalf("remove blob: %v", err)
	}
	r.client.Forget()
}

// CorruptBlob flips a byte of a blob's file: its size stays, its digest does not.
func (r *Dist) CorruptBlob(digest string) {
	r.t.Helper()
	path := r.BlobPath(digest)
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatalf("corrupt blob: %v", err)
	}
	data[len(data)/2] ^= 0xff
	if err := os.WriteFile(path, data, 0o644); err != nil {
		r.t.Fatalf("corrupt blob: %v", err)
	}
}

func (r *Dist) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\n")
	fmt.Fprintf(&b, "storage:\n  filesystem: {rootdirectory: %s, maxthreads: 100}\n  delete: {enabled: %v}\n", r.root(), !r.opts.NoDelete)
	fmt.Fprintf(&b, "  maintenance:\n    uploadpurging: {enabled: false}\n    readonly: {enabled: %v}\n", r.opts.ReadOnly)
	fmt.Fprintf(&b, "http: {addr: %q, secret: integration}\n", r.Addr)
	if r.opts.ForeignLayers {
		fmt.Fprintf(&b, "validation:\n  manifests:\n    urls: {allow: [\"^https?://\"]}\n")
	}
	if r.opts.Password != "" {
		hash, err := bcrypt.GenerateFromPassword([]byte(r.opts.Password), bcrypt.MinCost)
		if err != nil {
			r.t.Fatalf("%v", err)
		}
		path := filepath.Join(r.Dir, "htpasswd")
		if err := os.WriteFile(path, fmt.Appendf(nil, "%s:%s\n", r.opts.Username, hash), 0o644); err != nil {
			r.t.Fatalf("%v", err)
		}
		fmt.Fprintf(&b, "auth:\n  htpasswd: {realm: integration, path: %s}\n", path)
	}
	b.WriteString(r.opts.More)
	if len(r.opts.Notify) > 0 {
		fmt.Fprintf(&b, "notifications:\n  events: {includereferences: true}\n  endpoints:\n")
	}
	for i, e := range r.opts.Notify {
		fmt.Fprintf(&b, "    - name: to%d\n      url: %s\n      timeout: 5s\n      threshold: 3\n      backoff: 100ms\n", i, e.URL)
		if e.Authorization != "" {
			fmt.Fprintf(&b, "      headers: {Authorization: [%q]}\n", e.Authorization)
		}
		if !e.Everything {
			fmt.Fprintf(&b, "      ignore:\n        actions: [pull]\n")
		}
	}
	return b.String()
}

// PlantBlob puts a blob into a repository's storage behind the registry's
// back, leaving holes where it is zero: gigabytes cost no disk and no upload.
func (r *Dist) PlantBlob(repository string, blob Blob) {
	r.t.Helper()
	if err := r.plant(repository, blob); err != nil {
		r.t.Fatalf("plant blob %s: %v", blob.Digest, err)
	}
	done, _ := r.client.pushed(repository, blob.Digest)
	done()
}

func (r *Dist) plant(repository string, blob Blob) error {
	path := r.BlobPath(blob.Digest.String())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(blob.Size); err != nil {
		return err
	}
	body, page, zero := blob.Open(), make([]byte, 4<<10), make([]byte, 4<<10)
	for at := int64(0); at < blob.Size; at += int64(len(page)) {
		n, err := io.ReadFull(body, page)
		if err != nil && at+int64(n) != blob.Size {
			return err
		}
		if bytes.Equal(page[:n], zero[:n]) {
			continue
		}
		if _, err := f.WriteAt(page[:n], at); err != nil {
			return err
		}
	}
	link := filepath.Join(r.storage(), "repositories", repository, "_layers", blob.Digest.Algorithm().String(), blob.Digest.Encoded(), "link")
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	return os.WriteFile(link, []byte(blob.Digest.String()), 0o644)
}
