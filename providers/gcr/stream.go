package gcr

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/replicator/oci"
)

const (
	// maxListing bounds one answer in bytes, some three million manifests;
	// maxValue one value of it, as a manifest with thousands of tags.
	maxListing = 1 << 30
	maxValue   = 4 << 20
	// maxStrays bounds the names kept to tell tags that no manifest names.
	maxStrays = 200_000
	// maxChildren bounds the names below one.
	maxChildren = 200_000
)

// A listing is Google's own tags/list as it is read: beside the specification's
// tags every manifest with its tags and times, and the names below this one.
type listing struct {
	// tag is given each tag, once, until it says no; nil: nobody wants them.
	tag func(oci.Tag, error) bool

	some     bool // it holds a tag or manifest
	over     bool // tag has said no
	children []string
	// told are the tags that manifests have named; past maxStrays of them, what
	// no manifest names is not looked for.
	told  map[string]bool
	plain []string // tags that came before the manifests
	named bool     // the manifests have come
}

// A manifest is what the listing tells of one.
type manifest struct {
	Tags     []string `json:"tag"`
	Uploaded string   `json:"timeUploadedMs"` // since 1970, as a string
}

func (m manifest) at() time.Time {
	if ms, err := strconv.ParseInt(m.Uploaded, 10, 64); err == nil && ms > 0 {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

// list reads one answer into l.
func (r *Registry) list(ctx context.Context, full string, query url.Values, l *listing) (next url.Values, err error) {
	what := "GET tags " + full
	a, err := r.Ask(ctx, generic.Request{
		Operation: oci.OpList, What: what, Method: http.MethodGet, Path: "/v2/" + full + "/tags/list", Query: query,
		Scopes: []string{"repository:" + full + ":pull"}, Stream: true,
	})
	if err != nil {
		return nil, err
	}
	defer a.Stream.Close()
	body := &ration{r: a.Stream, left: maxValue, all: maxListing}
	err = l.read(json.NewDecoder(body), body)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil, l.over:
		return a.Next, nil
	case context.Cause(ctx) != nil:
		return nil, r.Fault(oci.RegistryError{Operation: what, Kind: ctx.Err(), Cause: context.Cause(ctx)})
	case errors.Is(err, errRation):
		return nil, r.Fault(oci.RegistryError{Operation: what, Kind: oci.ErrTooLarge, Message: err.Error()})
	case errors.As(err, &syntax), errors.As(err, &kind), errors.Is(err, errShape):
		return nil, r.Senseless(what, "the answer is no list of tags")
	}
	return nil, r.Fault(oci.RegistryError{Operation: what, Kind: oci.ErrInterrupted, Cause: err})
}

var errShape = errors.New("another shape")

// read takes the answer's object apart, a value at a time.
func (l *listing) read(dec *json.Decoder, body *ration) error {
	if there, err := open(dec, '{'); err != nil || !there {
		return err
	}
	for dec.More() {
		body.refill()
		key, err := dec.Token()
		if err != nil {
			return err
		}
		switch key {
		case "manifest":
			err = l.manifests(dec, body)
		case "tags":
			err = l.strings(dec, body, l.plainTag)
		case "child":
			err = l.strings(dec, body, l.child)
		default:
			var skipped json.RawMessage
			err = dec.Decode(&skipped)
		}
		if err != nil || l.over {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return cut(err)
	}
	for _, name := range l.plain {
		if len(l.told) < maxStrays && !l.give(oci.Tag{Name: name}) {
			return nil
		}
	}
	return nil
}

// manifests reads the object of manifests by digest.
func (l *listing) manifests(dec *json.Decoder, body *ration) error {
	there, err := open(dec, '{')
	if err != nil || !there {
		return err
	}
	l.named = true
	for dec.More() {
		body.refill()
		key, err := dec.Token()
		if err != nil {
			return err
		}
		var m manifest
		if err := dec.Decode(&m); err != nil {
			return err
		}
		l.some = true
		name, _ := key.(string)
		d := digest.Digest(name)
		if oci.CheckDigest(d) != nil {
			continue
		}
		for _, tag := range m.Tags {
			if !l.give(oci.Tag{Name: tag, Digest: d, PushedAt: m.at()}) {
				return nil
			}
		}
	}
	_, err = dec.Token()
	return cut(err)
}

// give hands a tag on, unless it was told before.
func (l *listing) give(tag oci.Tag) bool {
	if oci.CheckTag(tag.Name) != nil || l.told[tag.Name] {
		return true
	}
	l.some = true
	if len(l.told) < maxStrays {
		if l.told == nil {
			l.told = make(map[string]bool)
		}
		l.told[tag.Name] = true
	}
	l.over = l.tag != nil && !l.tag(tag, nil)
	return !l.over
}

// plainTag takes a line of the specification's own list. Its manifest tells more:
// where that comes later, the line waits.
func (l *listing) plainTag(name string) error {
	l.some = true
	switch {
	case l.named && len(l.told) >= maxStrays:
		return nil // too many to know
	case l.named:
		l.give(oci.Tag{Name: name})
		return nil
	case len(l.plain) >= maxStrays:
		return fmt.Errorf("more than %d tags before the manifests: %w", maxStrays, errRation)
	}
	l.plain = append(l.plain, name)
	return nil
}

func (l *listing) child(name string) error {
	if len(l.children) >= maxChildren {
		return fmt.Errorf("more than %d names below one: %w", maxChildren, errRation)
	}
	l.children = append(l.children, name)
	return nil
}

// strings reads an array of them.
func (l *listing) strings(dec *json.Decoder, body *ration, take func(string) error) error {
	if there, err := open(dec, '['); err != nil || !there {
		return err
	}
	for dec.More() {
		body.refill()
		var one string
		if err := dec.Decode(&one); err != nil {
			return err
		}
		if err := take(one); err != nil || l.over {
			return err
		}
	}
	_, err := dec.Token()
	return cut(err)
}

// open reads the beginning of an object or array; null is none.
func open(dec *json.Decoder, want json.Delim) (there bool, err error) {
	token, err := dec.Token()
	switch {
	case err != nil:
		return false, cut(err)
	case token == nil:
		return false, nil
	case token != want:
		return false, errShape
	}
	return true, nil
}

// cut tells an answer that ends early from one that is over.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errRation = errors.New("the listing, or one value of it, is too large")

// A ration bounds what a decoder takes in for one value, and in all.
type ration struct {
	r         io.Reader
	left, all int64
}

// refill begins the next value.
func (b *ration) refill() { b.left = maxValue }

func (b *ration) Read(p []byte) (int, error) {
	most := min(b.left, b.all)
	if most <= 0 {
		return 0, errRation
	}
	n, err := b.r.Read(p[:min(int64(len(p)), most)])
	b.left -= int64(n)
	b.all -= int64(n)
	return n, err
}
