package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator/oci"
	"github.com/twinport/twinport/replicator/oci/ocitest"
)

// listed are the digests under a subject's fallback tag.
func listed(r *ocitest.Registry, repository string, subject digest.Digest) []digest.Digest {
	m, ok := r.Manifest(repository, oci.FallbackTag(subject))
	if !ok {
		return nil
	}
	refs, err := oci.ParseReferences(m)
	if err != nil {
		return nil
	}
	var list []digest.Digest
	for _, desc := range refs.Manifests {
		list = append(list, desc.Digest)
	}
	slices.Sort(list)
	return list
}

func sorted(contents ...ocitest.Content) []digest.Digest {
	var list []digest.Digest
	for _, c := range contents {
		list = append(list, c.Digest())
	}
	slices.Sort(list)
	return list
}

func TestReferrersBetweenAllKindsOfRegistries(t *testing.T) {
	for _, sourceAPI := range []bool{true, false} {
		for _, destinationAPI := range []bool{true, false} {
			t.Run(fmt.Sprintf("source %v destination %v", sourceAPI, destinationAPI), func(t *testing.T) {
				eu := ocitest.New("oci://eu", ocitest.Options{ReferrersAPI: sourceAPI})
				us := ocitest.New("oci://us", ocitest.Options{ReferrersAPI: destinationAPI})
				c := ocitest.Image("image", 1)
				subject := c.Descriptor()
				one, two, theirs := ocitest.Artifact("one", "text/one", &subject), ocitest.Artifact("two", "text/two", &subject), ocitest.Artifact("theirs", "text/three", &subject)
				eu.Push(app, "v1", c)
				eu.Attach(app, one)
				eu.Attach(app, two)
				us.Attach(app, theirs)
				us.ResetCalls()
				copyTag(t, New(Options{Now: still()}), request(eu, c, to(us)), "v1")
				if destinationAPI {
					if got := listed(us, app, c.Digest()); got != nil || us.Count(ocitest.GetManifest) != 0 {
						t.Errorf("a fallback tag was kept: %v", got)
					}
					return
				}
				if got, want := listed(us, app, c.Digest()), sorted(one, two, theirs); !slices.Equal(got, want) {
					t.Errorf("listed %v, want %v", got, want)
				}
				tags := 0
				for _, call := range us.Calls() {
					if call.Method == ocitest.PutManifest && call.Reference == oci.FallbackTag(c.Digest()) {
						tags++
					}
				}
				if tags != 1 {
					t.Errorf("the fallback tag was written %d times", tags)
				}
				us.ResetCalls()
				before, _ := us.Manifest(app, oci.FallbackTag(c.Digest()))
				copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")
				after, _ := us.Manifest(app, oci.FallbackTag(c.Digest()))
				if before.Digest != after.Digest || slices.ContainsFunc(us.Calls(), func(call ocitest.Call) bool {
					return call.Method == ocitest.PutManifest && call.Reference == oci.FallbackTag(c.Digest())
				}) {
					t.Error("an index that lists all was written again")
				}
			})
		}
	}
}

func TestTheFallbackIndexIsAUnionUnderConcurrency(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.Image("image", 1)
	subject := c.Descriptor()
	us.Push(app, "v1", c)
	theirs := ocitest.Artifact("theirs", "text/plain", &subject)
	us.Attach(app, theirs)
	copier := New(Options{})
	all := []ocitest.Content{theirs}
	var done sync.WaitGroup
	for i := range 24 {
		a := ocitest.Artifact(fmt.Sprint("artifact", i), "text/plain", &subject)
		all = append(all, a)
		eu.Push(app, "", a)
		done.Go(func() {
			req := request(eu, a, to(us))
			req.Tagged, req.Referrers = false, ReferrersNone
			if r := copier.Copy(context.Background(), req)[0]; r.Err != nil || len(r.Findings) > 0 {
				t.Errorf("%d: %+v", i, r)
			}
		})
	}
	done.Wait()
	if got, want := listed(us, app, c.Digest()), sorted(all...); !slices.Equal(got, want) {
		t.Errorf("%d of %d are listed", len(got), len(want))
	}
	if len(copier.locks.held) != 0 {
		t.Errorf("%d locks left behind", len(copier.locks.held))
	}
}

func TestAnotherWriterOfTheFallbackIndexIsNotOverrun(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.Image("image", 1)
	subject := c.Descriptor()
	mine, theirs := ocitest.Artifact("mine", "text/plain", &subject), ocitest.Artifact("theirs", "text/plain", &subject)
	eu.Push(app, "v1", c)
	eu.Attach(app, mine)
	other := ocitest.New("oci://other", ocitest.Options{})
	other.Attach(app, theirs)
	index, _ := other.Manifest(app, oci.FallbackTag(c.Digest()))
	var once sync.Once
	us.OnDone(func(call ocitest.Call) {
		if call.Method == ocitest.PutManifest && call.Reference == oci.FallbackTag(c.Digest()) {
			once.Do(func() { // they had read before our PUT, and write after it
				us.Push(app, "", theirs)
				us.Push(app, oci.FallbackTag(c.Digest()), ocitest.Content{Manifests: []oci.Manifest{index}})
			})
		}
	})
	copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")
	if got, want := listed(us, app, c.Digest()), sorted(mine, theirs); !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func TestAFallbackTagThatIsNoIndexIsLeftAlone(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c, strange := ocitest.Image("image", 1), ocitest.Image("strange", 1)
	subject := c.Descriptor()
	eu.Push(app, "v1", c)
	eu.Attach(app, ocitest.Artifact("sig", "text/plain", &subject))
	us.Push(app, oci.FallbackTag(c.Digest()), strange)
	r := copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")[0]
	if got, _ := us.Manifest(app, oci.FallbackTag(c.Digest())); got.Digest != strange.Digest() {
		t.Error("it was overwritten")
	}
	if !slices.Equal(kinds(r), []string{"referrers"}) {
		t.Errorf("findings %v", r.Findings)
	}
}

func TestARootWithASubjectIsListedByTag(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	subject := ocitest.Image("image", 1).Descriptor()
	c := ocitest.Artifact("artifact", "text/plain", &subject)
	eu.Push(app, "v1", c)
	copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")
	if got := listed(us, app, subject.Digest); !slices.Equal(got, sorted(c)) {
		t.Errorf("listed %v", got)
	}
}

func TestFailingReferrers(t *testing.T) {
	c := ocitest.Image("image", 1)
	subject := c.Descriptor()
	sig := ocitest.Artifact("sig", "text/plain", &subject)
	at := sig.Blobs[1].Desc.Digest.String()
	passing := fmt.Errorf("down: %w", oci.ErrUnreachable)
	refused := &oci.RegistryError{Status: 403, Kind: oci.ErrDenied}
	for _, test := range []struct {
		name        string
		mode        ReferrersMode
		err         error
		until       time.Duration // how long it fails
		least, most time.Duration
		tries       int // 0: several
		fails       bool
		finding     string
	}{
		{"passing, then well", ReferrersFollow, passing, 20 * time.Second, 20 * time.Second, 30 * time.Second, 0, false, ""},
		{"passing for long", ReferrersFollow, passing, time.Hour, time.Minute, 66 * time.Second, 0, false, "referrers"},
		{"refused", ReferrersFollow, refused, time.Hour, 0, time.Second, 1, false, "referrers"},
		{"passing for long, required", ReferrersRequire, passing, time.Hour, time.Minute, 66 * time.Second, 0, true, ""},
		{"refused, required", ReferrersRequire, refused, time.Hour, 0, time.Second, 1, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
				eu.Push(app, "v1", c)
				eu.Attach(app, sig)
				start := time.Now()
				var tries atomic.Int32
				us.OnCall(func(_ context.Context, call ocitest.Call) error {
					if call.Method == ocitest.StartUpload && call.Reference == at {
						tries.Add(1)
						if time.Since(start) < test.until {
							return test.err
						}
					}
					return nil
				})
				req := request(eu, c, to(us))
				req.Referrers = test.mode
				r := New(Options{}).Copy(context.Background(), req)[0]
				took := time.Since(start)
				if took < test.least || took > test.most || (r.Err != nil) != test.fails || test.fails && !errors.Is(r.Err, test.err) {
					t.Errorf("after %s: %v", took, r.Err)
				}
				if got := strings.Join(kinds(r), ","); got != test.finding {
					t.Errorf("findings %q", got)
				}
				if n := int(tries.Load()); test.tries > 0 && n != test.tries || n > 40 {
					t.Errorf("%d tries", n)
				}
				if there := us.Has(app, sig); there != (test.finding == "" && !test.fails) || !r.RootPushed {
					t.Errorf("the referrer is there: %v, the root pushed: %v", there, r.RootPushed)
				}
			})
		})
	}
}

func TestASourceThatDoesNotTellItsReferrers(t *testing.T) {
	for _, mode := range []ReferrersMode{ReferrersFollow, ReferrersRequire} {
		synctest.Test(t, func(t *testing.T) {
			eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
			c := ocitest.Image("image", 1)
			eu.Push(app, "v1", c)
			eu.OnCall(func(_ context.Context, call ocitest.Call) error {
				if strings.HasPrefix(call.Reference, "sha256-") {
					return fmt.Errorf("%w", oci.ErrInterrupted)
				}
				return nil
			})
			req := request(eu, c, to(us))
			req.Referrers = mode
			r := New(Options{}).Copy(context.Background(), req)[0]
			if (r.Err != nil) != (mode == ReferrersRequire) || (r.Err == nil) != slices.Equal(kinds(r), []string{"referrers"}) {
				t.Errorf("mode %d: %v %v", mode, r.Err, r.Findings)
			}
		})
	}
}

func TestReferrersPushedDuringTheCopyTravelWithIt(t *testing.T) {
	eu, us, ap := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{}), ocitest.New("oci://ap", ocitest.Options{})
	c := ocitest.Image("image", 1)
	subject := c.Descriptor()
	late := ocitest.Artifact("late", "text/plain", &subject)
	eu.Push(app, "v1", c)
	synctest.Test(t, func(t *testing.T) {
		ap.OnCall(func(_ context.Context, call ocitest.Call) error {
			if call.Method == ocitest.PutUpload {
				time.Sleep(10 * time.Second)
				eu.Attach(app, late)
			}
			return nil
		})
		copyTag(t, New(Options{}), request(eu, c, to(us), to(ap)), "v1")
		if us.Has(app, late) || !ap.Has(app, late) {
			t.Errorf("the fast one has it: %v, the slow one: %v", us.Has(app, late), ap.Has(app, late))
		}
	})
}

func TestATagListSparesTheAsking(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.MultiArch("image", 2, 1)
	child := c.Manifests[0].Descriptor()
	tag, cosign := ocitest.CosignTag("sig", child.Digest, "sig")
	sbom := ocitest.Artifact("sbom", "text/plain", &child)
	eu.Push(app, "v1", c)
	eu.Push(app, tag, cosign)
	eu.Attach(app, sbom)
	names := eu.TagNames(app)
	copier := New(Options{Now: still()})
	copier.apis.remember(eu.Identity())
	req := request(eu, c, to(us))
	req.SourceTags = func(tag string) (bool, bool) { return slices.Contains(names, tag), true }
	r := copyTag(t, copier, req, "v1")[0]
	if !us.Has(app, cosign) || !us.Has(app, sbom) || len(r.Referrers) != 2 {
		t.Errorf("what belongs to a child did not come: %v", r.Referrers)
	}
	if n := eu.Count(ocitest.GetManifest); n != 2+1+1+1 { // children, fallback tag, cosign's tag, the SBOM
		t.Errorf("%d manifest reads: %v", n, eu.Calls())
	}
}

func TestCopyReferrersBringsWhatIsNew(t *testing.T) {
	for _, api := range []bool{true, false} {
		eu, us := ocitest.New("oci://eu", ocitest.Options{ReferrersAPI: api}), ocitest.New("oci://us", ocitest.Options{ReferrersAPI: api})
		ap := ocitest.New("oci://ap", ocitest.Options{})
		c := ocitest.Image("image", 1)
		subject := c.Descriptor()
		known, fresh := ocitest.Artifact("known", "text/plain", &subject), ocitest.Artifact("fresh", "text/plain", &subject)
		tag, cosign := ocitest.CosignTag("sig", c.Digest(), "sig")
		eu.Push(app, "v1", c)
		for _, a := range []ocitest.Content{known, fresh} {
			eu.Attach(app, a)
		}
		eu.Push(app, tag, cosign)
		us.Push(app, "v1", c)
		us.Attach(app, known)
		us.ResetCalls()
		copier := New(Options{Now: still()})
		req := request(eu, c, to(us), to(ap))
		results := copier.CopyReferrers(context.Background(), req)
		if r := results[0]; r.Err != nil || r.SubjectMissing || len(r.Referrers) != 3 || !us.Has(app, fresh) || !us.Has(app, cosign) {
			t.Errorf("api %v: %+v", api, r)
		}
		if r := results[1]; r.Err != nil || !r.SubjectMissing || ap.Count() != 1 {
			t.Errorf("api %v: without the subject: %+v", api, r)
		}
		for _, call := range us.Calls() {
			if call.Method == ocitest.PutManifest && (call.Reference == known.Digest().String() || call.Reference == c.Digest().String()) {
				t.Errorf("api %v: %v was put again", api, call)
			}
		}
		if !api && !slices.Equal(listed(us, app, c.Digest()), sorted(known, fresh)) {
			t.Errorf("listed %v", listed(us, app, c.Digest()))
		}
		// A second time nothing is written: that is where loops end.
		us.ResetCalls()
		if r := copier.CopyReferrers(context.Background(), req)[0]; r.Err != nil || len(r.Referrers) != 3 || us.Count(ocitest.PutManifest, ocitest.StartUpload) != 0 {
			t.Errorf("api %v: again: %+v %v", api, r, us.Calls())
		}
		// Full believes none of it.
		us.Remove(app, known.Blobs[1].Desc.Digest)
		req.Full = true
		if r := New(Options{}).CopyReferrers(context.Background(), req)[0]; r.Err != nil || !us.Has(app, known) {
			t.Errorf("api %v: full: %+v", api, r)
		}
	}
}

func TestCopyReferrersFailsWhereTryingAgainHelps(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c := ocitest.Image("image", 1)
	subject := c.Descriptor()
	sig := ocitest.Artifact("sig", "text/plain", &subject)
	eu.Push(app, "v1", c)
	eu.Attach(app, sig)
	us.Push(app, "v1", c)
	for _, kind := range []error{oci.ErrUnreachable, oci.ErrDenied} {
		us.OnCall(func(_ context.Context, call ocitest.Call) error {
			if call.Method == ocitest.PutManifest {
				return fmt.Errorf("%w", kind)
			}
			return nil
		})
		r := New(Options{}).CopyReferrers(context.Background(), request(eu, c, to(us)))[0]
		if errors.Is(r.Err, oci.ErrUnreachable) != (kind == oci.ErrUnreachable) || (len(r.Findings) == 1) != (kind == oci.ErrDenied) {
			t.Errorf("%v: %v %v", kind, r.Err, r.Findings)
		}
	}
}

func TestCompanionTagsOfTwoSidesAreNotLost(t *testing.T) {
	image := ocitest.Image("image", 1)
	tag, _ := ocitest.CosignTag("", image.Digest(), "sig")
	a, b := ocitest.Layer("signature a", 10), ocitest.Layer("signature b", 10)
	one, both, other := ocitest.ImageOf("one", a), ocitest.ImageOf("both", a, b), ocitest.ImageOf("other", b)
	for _, test := range []struct {
		name              string
		source, there     ocitest.Content
		merge             bool
		want              ocitest.Content
		finding           string
		referrersExpected int
	}{
		{"the source has grown", both, one, true, both, "", 1},
		{"the destination has grown", one, both, true, both, "", 0},
		{"they went apart", one, other, true, other, "conflict", 0},
		{"one way", one, other, false, one, "", 1},
	} {
		eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
		eu.Push(app, "v1", image)
		eu.Push(app, tag, test.source)
		us.Push(app, "v1", image)
		us.Push(app, tag, test.there)
		req := request(eu, image, to(us))
		req.Merge = test.merge
		for name, r := range map[string]Result{
			"copy": New(Options{}).Copy(context.Background(), req)[0], "referrers": New(Options{}).CopyReferrers(context.Background(), req)[0],
		} {
			got, _ := us.Manifest(app, tag)
			if r.Err != nil || got.Digest != test.want.Digest() || strings.Join(kinds(r), ",") != test.finding || len(r.Referrers) != test.referrersExpected {
				t.Errorf("%s by %s: %s, %+v", test.name, name, got.Digest, r)
			}
		}
	}
}

func TestReferrersOfReferrersEnd(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{ReferrersAPI: true}), ocitest.New("oci://us", ocitest.Options{ReferrersAPI: true})
	c := ocitest.Image("image", 1)
	eu.Push(app, "v1", c)
	subject := c.Descriptor()
	var chain []ocitest.Content
	for i := range maxReferrerDepth + 2 {
		a := ocitest.Artifact(fmt.Sprint("level", i), "text/plain", &subject)
		eu.Attach(app, a)
		subject = a.Descriptor()
		chain = append(chain, a)
	}
	r := copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")[0]
	if !us.Has(app, chain[maxReferrerDepth-1]) || us.Has(app, chain[maxReferrerDepth]) || !slices.Equal(kinds(r), []string{"referrers"}) {
		t.Errorf("%d came, findings %v", len(r.Referrers), r.Findings)
	}
}

func TestWhatIsListedButNoReferrerIsNotCopied(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	c, stranger := ocitest.Image("image", 1), ocitest.Image("stranger", 1)
	subject := c.Descriptor()
	gone := ocitest.Artifact("gone", "text/plain", &subject)
	eu.Push(app, "v1", c)
	eu.Push(app, "", stranger)
	eu.Attach(app, gone)
	eu.Remove(app, gone.Digest())
	index := ocitest.Index(stranger, gone)
	eu.Push(app, oci.FallbackTag(c.Digest()), ocitest.Content{Manifests: []oci.Manifest{index.Root()}})
	r := copyTag(t, New(Options{}), request(eu, c, to(us)), "v1")[0]
	if us.Has(app, stranger) || len(r.Findings) != 2 || r.Findings[0].Kind != "referrers" {
		t.Errorf("findings %+v", r.Findings)
	}
	if got := listed(us, app, c.Digest()); len(got) != 0 {
		t.Errorf("listed %v", got)
	}
}

func TestARegistryWithoutReferrersIsAskedOnce(t *testing.T) {
	eu, us := ocitest.New("oci://eu", ocitest.Options{}), ocitest.New("oci://us", ocitest.Options{})
	asked := make(chan struct{}, 20)
	release := make(chan struct{})
	eu.OnCall(func(_ context.Context, call ocitest.Call) error {
		if call.Method == ocitest.Referrers {
			asked <- struct{}{}
			<-release
		}
		return nil
	})
	copier := New(Options{Now: still()})
	var all sync.WaitGroup
	for i := range 20 {
		c := ocitest.Image(fmt.Sprint("image", i), 1)
		eu.Push(app, fmt.Sprint("v", i), c)
		all.Go(func() {
			if r := copier.Copy(context.Background(), request(eu, c, to(us)))[0]; r.Err != nil {
				t.Error(r.Err)
			}
		})
	}
	<-asked
	close(release)
	all.Wait()
	if n := eu.Count(ocitest.Referrers); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
