package limit

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

func TestSilence(t *testing.T) {
	type ask struct {
		op     oci.Operation
		status int // 0: no answer
	}
	read := func(status int) ask { return ask{oci.OpManifestRead, status} }
	dead := []ask{read(0), read(0), read(0), read(0), read(0)}
	cases := map[string]struct {
		asked  []ask
		silent bool
	}{
		"never asked":                         {nil, false},
		"no answer":                           {dead, true},
		"too few to tell":                     {dead[1:], false},
		"nothing but 500":                     {[]ask{read(500), read(500), read(500), read(500), read(500)}, true},
		"500 and no answer by turns":          {[]ask{read(500), read(0), read(503), read(0), read(502)}, true},
		"a good answer":                       {append(dead[:5:5], read(200)), false},
		"not there":                           {append(dead[:5:5], read(404)), false},
		"too many requests":                   {append(dead[:5:5], read(429)), false},
		"401 is the way to a token":           {append(dead[:5:5], read(401)), true},
		"a ping is not the content":           {append(dead[:5:5], ask{oci.OpPing, 200}), true},
		"a token is another server's":         {append(dead[:5:5], ask{oci.OpToken, 200}), true},
		"probes that fail go on with it":      {[]ask{read(0), {oci.OpPing, 0}, {oci.OpPing, 0}, {oci.OpPing, 0}, {oci.OpPing, 503}}, true},
		"a 501 is an answer":                  {append(dead[:5:5], ask{oci.OpReferrers, 501}), false},
		"one good answer among many failures": {append(append(dead[:5:5], read(200)), dead[:3]...), false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{}
				r := New(Spec{Registry: "eu"}, s, nil)
				began := time.Now()
				for _, a := range c.asked {
					s.status, s.err = a.status, nil
					if a.status == 0 {
						s.err = errDial
					}
					resp, err := s.RoundTrip(nil)
					status := 0
					if err == nil {
						status = resp.StatusCode
					}
					r.note(a.op, status, 0, judge(t.Context(), status, err, 0, nil))
					time.Sleep(time.Minute)
				}
				got := r.Silent()
				if want := time.Since(began); c.silent && got != want || !c.silent && got != 0 {
					t.Errorf("silent for %s after %s", got, want)
				}
			})
		})
	}
}

// A failure long ago is no sign of how things are now.
func TestAnOldSilenceIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Spec{Registry: "eu"}, &script{err: errDial}, nil)
		fail := func() { _, _ = do(t, r, t.Context(), oci.OpPing) }
		for range breakAfter {
			fail()
		}
		time.Sleep(recent + time.Second)
		if got := r.Silent(); got != 0 {
			t.Errorf("silent for %s though nothing was asked of late", got)
		}
		for range breakAfter {
			fail()
			time.Sleep(time.Second)
		}
		if got := r.Silent(); got != breakAfter*time.Second {
			t.Errorf("silent for %s, counted from the earlier failures", got)
		}
	})
}

// What the gate sees of real requests is what counts.
func TestSilenceThroughTheGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{status: http.StatusInternalServerError}
		r := New(Spec{Registry: "eu"}, s, nil)
		for range breakAfter {
			if _, err := do(t, r, t.Context(), oci.OpBlobRead); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if got := r.Silent(); got != breakAfter*time.Minute {
			t.Errorf("silent for %s", got)
		}
		if _, down := r.Down(); down {
			t.Error("500 opened the breaker")
		}
		s.status = http.StatusOK
		if _, err := do(t, r, t.Context(), oci.OpBlobRead); err != nil {
			t.Fatal(err)
		}
		if got := r.Silent(); got != 0 {
			t.Errorf("silent for %s after an answer", got)
		}
	})
}
