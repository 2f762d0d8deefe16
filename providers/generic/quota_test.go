package generic

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

type rounds func(*http.Request) (*http.Response, error)

func (f rounds) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestParseQuota(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		header map[string]string
		want   window
		told   bool
	}{
		"gitlab": {
			map[string]string{"RateLimit-Limit": "600", "RateLimit-Remaining": "12", "RateLimit-Reset": "1800000060"},
			window{600, 12, now.Add(time.Minute)}, true,
		},
		"another clock": {
			map[string]string{"X-RateLimit-Remaining": "3", "X-RateLimit-Reset": "1700000060", "Date": time.Unix(1_700_000_000, 0).UTC().Format(http.TimeFormat)},
			window{0, 3, now.Add(time.Minute)}, true,
		},
		"docker hub's api": {
			map[string]string{"X-RateLimit-Limit": "180", "X-RateLimit-Remaining": "179", "X-RateLimit-Reset": "1800000010"},
			window{180, 179, now.Add(10 * time.Second)}, true,
		},
		"seconds":        {map[string]string{"RateLimit-Limit": "10", "RateLimit-Remaining": "0", "RateLimit-Reset": "30"}, window{10, 0, now.Add(30 * time.Second)}, true},
		"for ever":       {map[string]string{"RateLimit-Remaining": "0", "RateLimit-Reset": "99999999999999"}, window{0, 0, now.Add(time.Hour)}, true},
		"pulls":          {map[string]string{"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}, window{}, false},
		"no reset":       {map[string]string{"RateLimit-Remaining": "76"}, window{}, false},
		"less than none": {map[string]string{"RateLimit-Remaining": "-1", "RateLimit-Reset": "30"}, window{}, false},
		"nothing":        {nil, window{}, false},
	} {
		h := make(http.Header)
		for k, v := range c.header {
			h.Set(k, v)
		}
		got, told := parseQuota(h, now)
		if told != c.told || got.limit != c.want.limit || got.remaining != c.want.remaining || !got.reset.Equal(c.want.reset) {
			t.Errorf("%s: %+v %v, want %+v %v", name, got, told, c.want, c.told)
		}
	}
}

// TestQuota: a registry that grants 100 requests a minute and refuses the rest
// refuses none of a sweep's, and always has some for a push.
func TestQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100
		left, reset, refusedThere := limit, time.Now().Add(time.Minute), 0
		q := newQuota(rounds(func(*http.Request) (*http.Response, error) {
			if !time.Now().Before(reset) {
				left, reset = limit, time.Now().Add(time.Minute)
			}
			status := http.StatusOK
			if left--; left < 0 {
				status, left = http.StatusTooManyRequests, 0
				refusedThere++
			}
			time.Sleep(10 * time.Millisecond)
			return &http.Response{StatusCode: status, Body: http.NoBody, Header: http.Header{
				"Ratelimit-Limit": {strconv.Itoa(limit)}, "Ratelimit-Remaining": {strconv.Itoa(left)},
				"Ratelimit-Reset": {strconv.Itoa(int(time.Until(reset)/time.Second) + 1)},
			}}, nil
		}))
		ask := func(ctx context.Context) int {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://registry.example.com/v2/", nil)
			resp, err := q.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == http.StatusTooManyRequests {
				wait, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
				if wait == 0 {
					t.Fatal("a refusal that does not say when to ask again")
				}
				time.Sleep(time.Duration(wait) * time.Second)
			}
			return resp.StatusCode
		}
		background := oci.WithBackground(t.Context())
		began, answered := time.Now(), 0
		for time.Since(began) < 10*time.Minute {
			if ask(background) == http.StatusOK {
				answered++
			}
			if answered%50 == 0 && ask(t.Context()) != http.StatusOK {
				t.Fatal("nothing was left for a push")
			}
		}
		if refusedThere != 0 {
			t.Errorf("%d refused", refusedThere)
		}
		if answered < 850 { // of about 1,000
			t.Errorf("%d background requests in ten minutes", answered)
		}
		// Whoever gives up does not wait any longer.
		q.note("registry.example.com", http.Header{"Ratelimit-Limit": {"100"}, "Ratelimit-Remaining": {"5"}, "Ratelimit-Reset": {"30"}})
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://registry.example.com/v2/", nil)
		began = time.Now()
		if _, err := q.RoundTrip(req); err == nil || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
