package api

import (
	"strings"
	"testing"
)

func TestProfiles(t *testing.T) {
	h := Profiles(noToken)
	for _, test := range []struct {
		method, target string
		code           int
		begins         string
	}{
		{"GET", "/debug/pprof/heap?gc=1", 200, "\x1f\x8b"},
		{"GET", "/debug/pprof/goroutine", 200, "\x1f\x8b"},
		{"GET", "/debug/pprof/goroutine?debug=2", 200, "goroutine "},
		{"POST", "/debug/pprof/heap", 405, ""},
		{"GET", "/debug/pprof/", 404, ""},
		{"GET", "/debug/pprof/cmdline", 404, ""},
		{"GET", "/debug/pprof/trace", 404, ""},
	} {
		w := ask(t, h, test.method, test.target, "")
		if w.Code != test.code || !strings.HasPrefix(w.Body.String(), test.begins) {
			t.Errorf("%s %s: %d %.20q", test.method, test.target, w.Code, w.Body)
		}
	}
	token := func() (string, error) { return "s3cret", nil }
	for _, address := range []string{"heap", "goroutine", "profile?seconds=1"} {
		if w := ask(t, Profiles(token), "GET", "/debug/pprof/"+address, ""); w.Code != 401 {
			t.Errorf("%s without the token: %d", address, w.Code)
		}
	}
}
