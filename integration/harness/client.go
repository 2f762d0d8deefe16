package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// ErrAbsent tells that the registry answered 404.
var ErrAbsent = errors.New("not there")

// A Client speaks the distribution protocol to one registry, plainly: it is
// the tests' own view, sharing nothing with the product.
type Client struct {
	Addr               string
	Username, Password string

	http *http.Client
	mu   sync.Mutex
	has  map[string]bool // repository@digest of blobs and manifests pushed by this client
}

// NewClient returns a client of the registry at host:port, by plain HTTP.
func NewClient(addr string) *Client {
	return &Client{
		Addr: addr,
		http: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute},
			Timeout:   10 * time.Minute,
		},
		has: make(map[string]bool),
	}
}

// Forget makes the client push again what it pushed before.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.has)
}

func (c *Client) url(format string, args ...any) string {
	return "http://" + c.Addr + "/v2/" + fmt.Sprintf(format, args...)
}

func (c *Client) do(ctx context.Context, method, target string, body io.Reader, size int64, header map[string]string) (*http.Response, error) {
	if size == 0 {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if size >= 0 {
		req.ContentLength = size
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	if c.Password != "" {
		req.SetBasicAuth(c.Username, c.Password)
	}
	return c.http.Do(req)
}

// expect reads the answer's end and returns an error unless the status is one of those given.
func expect(resp *http.Response, err error, want ...int) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if slices.Contains(want, resp.StatusCode) {
		return nil
	}
	what := fmt.Sprintf("%s %s: %s: %s", resp.Request.Method, resp.Request.URL.Path, resp.Status, bytes.TrimSpace(body))
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%s: %w", what, ErrAbsent)
	}
	return errors.New(what)
}

func (c *Client) pushed(repository string, d digest.Digest) (done func(), already bool) {
	key := repository + "@" + d.String()
	c.mu.Lock()
	defer c.mu.Unlock()
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.has[key] = true
	}, c.has[key]
}

// PushBlob uploads a blob unless this client did already.
func (c *Client) PushBlob(ctx context.Context, repository string, blob Blob) error {
	done, already := c.pushed(repository, blob.Digest)
	if already {
		return nil
	}
	resp, err := c.do(ctx, http.MethodPost, c.url("%s/blobs/uploads/", repository), nil, 0, nil)
	if err := expect(resp, err, http.StatusAccepted); err != nil {
		return err
	}
	location, err := resp.Location()
	if err != nil {
		return err
	}
	query := location.Query()
	query.Set("digest", blob.Digest.String())
	location.RawQuery = query.Encode()
	resp, err = c.do(ctx, http.MethodPut, location.String(), blob.Open(), blob.Size, map[string]string{"Content-Type": "application/octet-stream"})
	if err := expect(resp, err, http.StatusCreated); err != nil {
		return err
	}
	done()
	return nil
}

// PutManifest puts a manifest's bytes under a reference (a tag, or its digest).
func (c *Client) PutManifest(ctx context.Context, repository, reference string, g *Graph) error {
	resp, err := c.do(ctx, http.MethodPut, c.url("%s/manifests/%s", repository, reference), bytes.NewReader(g.Bytes), g.Size, map[string]string{"Content-Type": g.MediaType})
	return expect(resp, err, http.StatusCreated)
}

// Push pushes a graph: blobs, children, then the root under each tag, or by
// its digest where there is none.
func (c *Client) Push(ctx context.Context, repository string, g *Graph, tags ...string) error {
	for _, blob := range g.Blobs {
		if err := c.PushBlob(ctx, repository, blob); err != nil {
			return err
		}
	}
	for _, child := range g.Children {
		done, already := c.pushed(repository, child.Digest)
		if already {
			continue
		}
		if err := c.Push(ctx, repository, child); err != nil {
			return err
		}
		done()
	}
	if len(tags) == 0 {
		tags = []string{g.Digest.String()}
	}
	for _, tag := range tags {
		if err := c.PutManifest(ctx, repository, tag, g); err != nil {
			return err
		}
	}
	return nil
}

// PushReferrer pushes an artifact with a subject by its digest and lists it in
// the subject's fallback tag, as clients do where there is no referrers API.
func (c *Client) PushReferrer(ctx context.Context, repository string, artifact *Graph) error {
	if err := c.Push(ctx, repository, artifact); err != nil {
		return err
	}
	index := v1.Index{MediaType: v1.MediaTypeImageIndex}
	index.SchemaVersion = 2
	tag := FallbackTag(artifact.Subject)
	raw, _, err := c.Manifest(ctx, repository, tag)
	switch {
	case errors.Is(err, ErrAbsent):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(raw, &index); err != nil {
			return err
		}
	}
	index.Manifests = append(index.Manifests, artifact.Descriptor)
	return c.PutManifest(ctx, repository, tag, graph(v1.MediaTypeImageIndex, index))
}

var acceptAll = strings.Join([]string{v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, DockerList, DockerManifest}, ", ")

// Manifest reads a manifest's bytes and media type; ErrAbsent where there is none.
func (c *Client) Manifest(ctx context.Context, repository, reference string) ([]byte, string, error) {
	resp, err := c.do(ctx, http.MethodGet, c.url("%s/manifests/%s", repository, reference), nil, 0, map[string]string{"Accept": acceptAll})
	if err != nil {
		return nil, "", err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, "", expect(resp, nil)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return raw, resp.Header.Get("Content-Type"), err
}

// Digest is what a tag names, computed from the manifest's bytes; ErrAbsent
// where the tag does not exist.
func (c *Client) Digest(ctx context.Context, repository, tag string) (digest.Digest, error) {
	raw, _, err := c.Manifest(ctx, repository, tag)
	if err != nil {
		return "", err
	}
	return digest.FromBytes(raw), nil
}

// Tags lists a repository's tags; none where the repository is unknown.
func (c *Client) Tags(ctx context.Context, repository string) ([]string, error) {
	var out []string
	err := c.pages(ctx, c.url("%s/tags/list?n=1000", repository), func(body io.Reader) error {
		var page struct{ Tags []string }
		err := json.NewDecoder(body).Decode(&page)
		out = append(out, page.Tags...)
		return err
	})
	return out, err
}

// Repositories lists the registry's repositories, in order.
func (c *Client) Repositories(ctx context.Context) ([]string, error) {
	var out []string
	err := c.pages(ctx, c.url("_catalog?n=1000"), func(body io.Reader) error {
		var page struct{ Repositories []string }
		err := json.NewDecoder(body).Decode(&page)
		out = append(out, page.Repositories...)
		return err
	})
	return out, err
}

// pages reads a listing to its end; a 404 is an empty one.
func (c *Client) pages(ctx context.Context, next string, read func(io.Reader) error) error {
	for next != "" {
		resp, err := c.do(ctx, http.MethodGet, next, nil, 0, nil)
		if err != nil {
			return err
		}
		if resp.StatusCode == http.StatusNotFound {
			resp.Body.Close()
			return nil
		}
		if resp.StatusCode != http.StatusOK {
			return expect(resp, nil)
		}
		err = read(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if next, err = nextPage(resp); err != nil {
			return err
		}
	}
	return nil
}

func nextPage(resp *http.Response) (string, error) {
	link := resp.Header.Get("Link")
	if link == "" {
		return "", nil
	}
	start, end := strings.Index(link, "<"), strings.Index(link, ">")
	if start < 0 || end < start {
		return "", fmt.Errorf("link header %q", link)
	}
	u, err := url.Parse(link[start+1 : end])
	if err != nil {
		return "", err
	}
	return resp.Request.URL.ResolveReference(u).String(), nil
}

// Delete removes a manifest, by tag or digest.
func (c *Client) Delete(ctx context.Context, repository, reference string) error {
	resp, err := c.do(ctx, http.MethodDelete, c.url("%s/manifests/%s", repository, reference), nil, 0, nil)
	c.Forget()
	return expect(resp, err, http.StatusAccepted)
}

// BlobSize asks for a blob's size by HEAD; ErrAbsent where it is not there.
func (c *Client) BlobSize(ctx context.Context, repository string, d digest.Digest) (int64, error) {
	resp, err := c.do(ctx, http.MethodHead, c.url("%s/blobs/%s", repository, d), nil, 0, nil)
	if err := expect(resp, err, http.StatusOK); err != nil {
		return 0, err
	}
	return resp.ContentLength, nil
}

// CheckBlob reads a blob and compares every byte's hash.
func (c *Client) CheckBlob(ctx context.Context, repository string, desc v1.Descriptor) error {
	resp, err := c.do(ctx, http.MethodGet, c.url("%s/blobs/%s", repository, desc.Digest), nil, 0, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return expect(resp, nil)
	}
	defer resp.Body.Close()
	verifier := desc.Digest.Verifier()
	n, err := io.Copy(verifier, resp.Body)
	if err != nil {
		return err
	}
	if n != desc.Size || !verifier.Verified() {
		return fmt.Errorf("blob %s at %s/%s: %d bytes that are not its digest (size %d)", desc.Digest, c.Addr, repository, n, desc.Size)
	}
	return nil
}

// Has checks that the registry holds the graph, byte for byte: every manifest
// under its digest with its media type, every blob hashed where deep is set,
// else its presence and size. A tag, where given, must name the root.
func (c *Client) Has(ctx context.Context, repository, tag string, g *Graph, deep bool) error {
	if tag != "" {
		raw, _, err := c.Manifest(ctx, repository, tag)
		if err != nil {
			return err
		}
		if !bytes.Equal(raw, g.Bytes) {
			return fmt.Errorf("%s/%s:%s is %s, want %s", c.Addr, repository, tag, digest.FromBytes(raw), g.Digest)
		}
	}
	var err error
	seen := make(map[digest.Digest]bool)
	g.All(func(m *Graph) {
		if err == nil && !seen[m.Digest] {
			seen[m.Digest] = true
			err = c.hasOne(ctx, repository, m, deep, seen)
		}
	})
	return err
}

func (c *Client) hasOne(ctx context.Context, repository string, m *Graph, deep bool, seen map[digest.Digest]bool) error {
	raw, mediaType, err := c.Manifest(ctx, repository, m.Digest.String())
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, m.Bytes) || mediaType != m.MediaType {
		return fmt.Errorf("manifest %s at %s/%s differs (%s, %d bytes; want %s, %d)", m.Digest, c.Addr, repository, mediaType, len(raw), m.MediaType, m.Size)
	}
	for _, blob := range m.Blobs {
		if seen[blob.Digest] {
			continue
		}
		seen[blob.Digest] = true
		if deep {
			if err := c.CheckBlob(ctx, repository, blob.Descriptor); err != nil {
				return err
			}
			continue
		}
		size, err := c.BlobSize(ctx, repository, blob.Digest)
		if err != nil {
			return err
		}
		if size != blob.Size {
			return fmt.Errorf("blob %s at %s/%s has size %d, want %d", blob.Digest, c.Addr, repository, size, blob.Size)
		}
	}
	return nil
}

// Each runs f for 0…n-1, 8 at a time, and returns the first error.
func Each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error { return f(ctx, i) })
	}
	return g.Wait()
}
