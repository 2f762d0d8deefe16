package generic

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/twinport/twinport/replicator/oci"
)

func TestParseChallenges(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want []challenge
	}{
		{nil, nil},
		{[]string{`Basic realm="x"`}, []challenge{{"basic", map[string]string{"realm": "x"}}}},
		{
			[]string{`Bearer realm="https://a/token",service="a b",scope="repository:x:pull,push repository:y:pull"`},
			[]challenge{{"bearer", map[string]string{"realm": "https://a/token", "service": "a b", "scope": "repository:x:pull,push repository:y:pull"}}},
		},
		{[]string{`Bearer realm = "a\"b" , service=x, Basic realm="y, z"`}, []challenge{
			{"bearer", map[string]string{"realm": `a"b`, "service": "x"}}, {"basic", map[string]string{"realm": "y, z"}},
		}},
		{[]string{`Negotiate`, `BASIC`}, []challenge{{"negotiate", map[string]string{}}, {"basic", map[string]string{}}}},
		{[]string{`realm="x"`}, nil},
		{[]string{`Bearer realm="open`}, []challenge{{"bearer", map[string]string{"realm": "open"}}}},
		{[]string{`Bearer REALM=a,realm=b`}, []challenge{{"bearer", map[string]string{"realm": "a"}}}},
		{[]string{strings.Repeat("x", maxChallenge+1)}, nil},
	} {
		if got := parseChallenges(c.in); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %v, want %v", c.in, got, c.want)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, " 5 ": 5 * time.Second, "0.5": 500 * time.Millisecond, "-3": 0, "NaN": 0, "1e400": 0,
		"99999999": maxRetryAfter, "880µs": 880 * time.Microsecond, "1m30s": 90 * time.Second, "-1m": 0, "900h": maxRetryAfter,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:05 GMT": 0, "Fri, 02 Jan 2099 03:00:05 GMT": maxRetryAfter,
		"soon": 0, "Inf": maxRetryAfter,
	} {
		if got := parseRetryAfter(in, now); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestParseUploadRange(t *testing.T) {
	for in, want := range map[string]int64{"0-99": 100, "0-0": 0, "0--1": 0, "bytes=0-9": 10, "": -1, "0": -1, "1-9": -1, "0-x": -1, "0--5": -1, "0-9223372036854775807": -1} {
		got, ok := parseUploadRange(in)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d, want %d", in, got, want)
		}
	}
}

func TestCanonicalHost(t *testing.T) {
	for _, c := range []struct {
		in    string
		plain bool
		want  string
	}{
		{"Registry.Example", false, "registry.example"},
		{"registry.example:443", false, "registry.example"},
		{"registry.example:80", true, "registry.example"},
		{"registry.example:5000", false, "registry.example:5000"},
		{"127.0.0.1:5000", true, "127.0.0.1:5000"},
		{"localhost:5000", true, "localhost:5000"},
		{"[::1]:5000", true, "[::1]:5000"},
		{"docker.io", false, "index.docker.io"},
		{"", false, ""},
		{"a/b", false, ""},
		{"user@host", false, ""},
		{"host?x", false, ""},
		{"a b", false, ""},
	} {
		got, err := canonicalHost(c.in, c.plain)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: got %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestIsPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "2001:4860:4860::8888": true, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"127.0.0.1": false, "169.254.169.254": false, "0.0.0.0": false, "100.64.0.1": false, "::1": false, "fe80::1%eth0": false,
		"fc00::1": false, "::ffff:10.0.0.1": false, "::127.0.0.1": false, "2001:0:7f00:1::": false, "192.0.2.1": false, "64:ff9b::a00:1": false, "224.0.0.1": false, "255.255.255.255": false,
	} {
		if got := isPublic(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
}

func TestAllowListRefusesNonsense(t *testing.T) {
	for _, entry := range []string{"", " ", ".", "http://x", "a/b", "*.x", "a b"} {
		if _, err := newAllowList([]string{entry}); err == nil {
			t.Errorf("%q passes", entry)
		}
	}
}

func FuzzLink(f *testing.F) {
	for _, s := range []string{`<?last=a>; rel="next"`, `</v2/_catalog?n=1>;rel=next, <x>; rel=prev`, `<`, `<a>;;=;rel="`, `<a>; rel="ne\`} {
		f.Add(s)
	}
	base := &url.URL{Scheme: "https", Host: "registry.example", Path: "/v2/_catalog"}
	f.Fuzz(func(t *testing.T, s string) {
		next, err := nextPage([]string{s}, base, base)
		if err == nil && next != nil && (next.Host != base.Host || next.Scheme != base.Scheme || next.Path != base.Path) {
			t.Fatalf("%q leads to %s", s, next)
		}
	})
}

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{`Bearer realm="https://a/token",service="b",scope="c"`, `Basic realm=x, Digest a=b`, `=,="\`, `a b c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := parseChallenges([]string{s})
		if len(got) > maxChallenges {
			t.Fatalf("%d challenges", len(got))
		}
		for _, c := range got {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || len(c.params) > maxChallengeParams {
				t.Fatalf("%q: %+v", s, c)
			}
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"5", "1m", "Fri, 02 Jan 2026 03:05:05 GMT", "-1", "1e9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseRetryAfter(s, time.Unix(0, 0)); d < 0 || d > maxRetryAfter {
			t.Fatalf("%q: %s", s, d)
		}
	})
}

func FuzzErrorBody(f *testing.F) {
	for _, s := range []string{`{"errors":[{"code":"DENIED","message":"no","detail":{}}]}`, `{"errors":[]}`, `{"error":5}`, "text", `{"details":"x"}`} {
		f.Add("application/json", []byte(s))
		f.Add("text/plain", []byte(s))
	}
	reg, err := New(Spec{Name: "eu", Host: "registry.example"}, http.DefaultTransport)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		c := call{op: oci.OpManifestWrite, what: "PUT", method: http.MethodPut}
		failure := reg.refusal(&c, 400, http.Header{"Content-Type": {contentType}}, body, true)
		text := failure.error().Error()
		if len(text) > 1000 || strings.ContainsAny(text, "\n\r\x1b") || !utf8.ValidString(text) {
			t.Fatalf("%q", text)
		}
	})
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{`{"tags":["a",null,5]}`, `{"name":"x","tags":null}`, `[]`, `{"tags":{}}`, `null`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		names, err := parseNames(body, "tags")
		if err == nil && !json.Valid(body) {
			t.Fatalf("%q is a list", body)
		}
		for _, name := range names {
			if name == "" {
				t.Fatalf("%q has an empty name", body)
			}
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/100", "bytes 0-9/*", "bytes 9-0/5", "0-9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, ok := parseContentRange(s)
		if ok && (first < 0 || last < first || total != -1 && total <= last) {
			t.Fatalf("%q: %d-%d/%d", s, first, last, total)
		}
		if n, ok := parseUploadRange(s); ok && n < 0 {
			t.Fatalf("%q: %d", s, n)
		}
	})
}
