package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/twinport/twinport/integration/clouds"
	"github.com/twinport/twinport/integration/harness"
)

// A sky is twinport between a distribution registry, eu, and a fake of each
// cloud, whose content is in a distribution registry of its own. What is pushed
// below NAME/ in one of them goes to all others.
type sky struct {
	*harness.Daemon
	t      *testing.T
	fakes  *clouds.Clouds
	keeper map[string]*harness.Dist // eu itself, and what is behind each fake
}

func clouded(t *testing.T, queues bool) *sky {
	t.Helper()
	s := &sky{Daemon: harness.NewDaemon(t, harness.Config{}), t: t, keeper: make(map[string]*harness.Dist)}
	s.Race = !testing.Short()
	names := []string{"eu", clouds.ECR, clouds.ACR, clouds.GCR}
	o := clouds.Options{Upstream: make(map[string]string), Queues: queues}
	for _, name := range names {
		var options harness.RegistryOptions
		if name == "eu" {
			options.Notify = []harness.Endpoint{s.Endpoint("eu")}
		}
		s.keeper[name] = harness.StartRegistry(t, name, options)
		o.Upstream[name] = s.keeper[name].Addr
	}
	s.fakes = clouds.Start(t, o)
	s.Env = s.fakes.Env
	s.Config.Registries = append(s.fakes.Registries(), harness.RegistryConfig{Name: "eu", Addr: s.keeper["eu"].Addr})
	for _, from := range names {
		to := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == from })
		s.Config.Routes = append(s.Config.Routes, harness.RouteConfig{
			Name: "from-" + from, From: from, To: to,
			Lines: []string{"sweep: never", "repositories: {include: [" + from + "/**]}"},
		})
	}
	s.WriteConfig()
	s.Start()
	return s
}

// push pushes an index of images by a client that is not ours, which logs in as
// people do, and gives its digest.
func (s *sky) push(from, repository, tag string) string {
	s.t.Helper()
	addr, login := s.keeper["eu"].Addr, authn.Anonymous
	if from != "eu" {
		username, password := s.fakes.Login(s.t, from)
		addr, login = s.fakes.Addr[from], &authn.Basic{Username: username, Password: password}
	}
	if from == clouds.ECR { // whoever pushes there makes the repository first
		s.fakes.MakeRepository(repository)
	}
	index, err := random.Index(20_000, 3, 2)
	if err != nil {
		s.t.Fatal(err)
	}
	ref, err := name.ParseReference(addr+"/"+repository+":"+tag, name.Insecure)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index, remote.WithAuth(login), remote.WithContext(s.t.Context())); err != nil {
		s.t.Fatalf("push to %s: %v", from, err)
	}
	digest, err := index.Digest()
	if err != nil {
		s.t.Fatal(err)
	}
	return digest.String()
}

// arrives waits until every other registry holds what was pushed, past the
// fakes, and then pulls it whole from there.
func (s *sky) arrives(from, repository, tag, digest string) {
	s.t.Helper()
	for to, keeper := range s.keeper {
		if to == from {
			continue
		}
		at := repository
		if to == clouds.GCR {
			at = clouds.Project + "/" + clouds.Repository + "/" + repository
		}
		harness.WaitFor(s.t, fmt.Sprintf("%s of %s in %s", repository, from, to), 90*time.Second, func(ctx context.Context) error {
			got, err := keeper.Client().Digest(ctx, at, tag)
			if err == nil && got.String() != digest {
				err = fmt.Errorf("it is %s, not %s", got, digest)
			}
			return err
		})
		if err := pull(s.t.Context(), keeper.Addr, at, tag); err != nil {
			s.t.Errorf("%s: %v", to, err)
		}
	}
	s.WaitSettled(time.Minute)
}

// A push to any cloud, told by its own event, arrives in all others, and one to
// a distribution registry in all clouds: with the providers' own SDKs, repositories
// that have to be made first, and blobs redirected to hosts where a credential
// would fail the test.
func TestPushesArriveInEveryCloud(t *testing.T) {
	t.Parallel()
	s := clouded(t, false)
	for _, name := range []string{clouds.ECR, clouds.ACR, clouds.GCR} {
		s.fakes.Post(name, "http://"+s.Listen)
	}
	for _, from := range []string{"eu", clouds.ECR, clouds.ACR, clouds.GCR} {
		s.arrives(from, from+"/app", "v1", s.push(from, from+"/app", "v1"))
	}
	if made, ok := s.fakes.Amazon.Made("eu/app"); !ok || made.Mutability != "MUTABLE" {
		t.Errorf("the repository was not made: %+v, %v", made, ok)
	}
	if r := s.Command("verify", "--deep"); r.Code != 0 {
		t.Errorf("verify ended with %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
}

// The same where nothing reaches the daemon: events lie in SQS and Pub/Sub until
// what they tell is committed, and then no longer.
func TestPushesAreFetchedFromQueues(t *testing.T) {
	t.Parallel()
	s := clouded(t, true)
	for _, from := range []string{clouds.ECR, clouds.GCR} {
		s.arrives(from, from+"/app", "v1", s.push(from, from+"/app", "v1"))
	}
	harness.WaitFor(t, "queues to be empty", time.Minute, func(context.Context) error {
		if left := s.fakes.Queue.Left(); left > 0 {
			return fmt.Errorf("%d messages are left in SQS", left)
		}
		if published, acknowledged := s.fakes.PubSub.Messages(); acknowledged < published {
			return fmt.Errorf("%d of %d messages of Pub/Sub are acknowledged", acknowledged, published)
		}
		return nil
	})
	if s.fakes.Hooks[clouds.ECR].Posted() > 0 {
		t.Error("events were posted, too")
	}
}
