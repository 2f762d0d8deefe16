package journal

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestIDsGrowAndSortAsText(t *testing.T) {
	s := ids{replica: 5}
	s.seen(int64(1000) << replicaBits)
	var last string
	for _, now := range []int64{10, 999, 2000, 2000, 1500, math.MaxInt64 >> (replicaBits + 1)} {
		id := s.next(now)
		text := formatID(id)
		if text <= last || len(text) != idLength {
			t.Errorf("%q after %q", text, last)
		}
		if back, err := parseID(text); err != nil || back != id {
			t.Errorf("%q is %d, was %d: %v", text, back, id, err)
		}
		last = text
	}
	for _, bad := range []string{"", "0", strings.Repeat("0", 14), strings.Repeat("z", 13), "000000000000u", "000000000000é"[:13]} {
		if id, err := parseID(bad); err == nil {
			t.Errorf("%q is %d", bad, id)
		}
	}
}

func TestTimesSurviveTheDatabase(t *testing.T) {
	now := time.Date(2026, 2, 3, 4, 5, 6, 789_000, time.FixedZone("x", 3600))
	if got := fromMicros(micros(now)); !got.Equal(now) || got.Location() != time.UTC {
		t.Errorf("%s came back as %s", now, got)
	}
	if got := fromMicros(micros(time.Time{})); !got.IsZero() {
		t.Errorf("no time came back as %s", got)
	}
}
