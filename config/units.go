package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// longest is the longest duration a config may ask for: beyond it is a typing
// error, and sums of durations cannot overflow.
const longest = 36500 * 24 * time.Hour

// errPlain says no more than that a value is not what it has to be.
var errPlain = errors.New("it cannot be read")

var errTooLong = errors.New("longer than 100 years")

// parseDuration reads Go's durations with a unit more: d, of 24 hours.
func parseDuration(s string) (time.Duration, error) {
	rest, negative := strings.CutPrefix(s, "-")
	if !negative {
		rest = strings.TrimPrefix(s, "+")
	}
	if rest == "" || len(rest) > 64 {
		return 0, errPlain
	}
	var days float64
	var other strings.Builder
	for part := rest; part != ""; {
		n := strings.IndexFunc(part, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if n <= 0 {
			if n < 0 {
				return 0, errors.New("a number without a unit")
			}
			return 0, errPlain
		}
		end := n + strings.IndexAny(part[n:]+"0", "0123456789.")
		if part[n:end] == "d" {
			v, err := strconv.ParseFloat(part[:n], 64)
			if err != nil {
				return 0, errPlain
			}
			days += v
		} else {
			other.WriteString(part[:end])
		}
		part = part[end:]
	}
	if days > longest.Hours()/24 {
		return 0, errTooLong
	}
	d := time.Duration(math.Round(days * float64(24*time.Hour)))
	if other.Len() > 0 {
		v, err := time.ParseDuration(other.String())
		if err != nil {
			return 0, errPlain
		}
		d += v
	}
	if d > longest || d < 0 {
		return 0, errTooLong
	}
	if negative {
		d = -d
	}
	return d, nil
}

// sizeUnits in the order messages list them.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"B", 1}, {"kB", 1e3}, {"KiB", 1 << 10}, {"MB", 1e6}, {"MiB", 1 << 20}, {"GB", 1e9}, {"GiB", 1 << 30},
}

// parseSize reads a number with one of the units, in bytes.
func parseSize(s string) (int64, error) {
	n := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if n < 0 {
		return 0, errors.New("a number without a unit")
	}
	v, err := strconv.ParseFloat(s[:n], 64)
	if err != nil {
		return 0, errPlain
	}
	unit := strings.TrimSpace(s[n:])
	names := make([]string, 0, len(sizeUnits))
	for _, u := range sizeUnits {
		if u.name == unit {
			v *= float64(u.bytes)
			if v >= math.MaxInt64/2 {
				return 0, errors.New("too large")
			}
			return int64(v), nil
		}
		names = append(names, u.name)
	}
	if w := meant(unit, names); w != "" {
		return 0, fmt.Errorf("no unit %q, did you mean %s?", unit, w)
	}
	return 0, fmt.Errorf("no unit %s", quote(unit))
}

// parsePercent reads "5%" as 0.05.
func parsePercent(s string) (float64, error) {
	number, ok := strings.CutSuffix(s, "%")
	if !ok {
		return 0, errors.New("no percent sign")
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || math.IsNaN(v) {
		return 0, errPlain
	}
	if v <= 0 || v > 100 {
		return 0, errors.New("not between 0 and 100")
	}
	return v / 100, nil
}

// parseClock reads "08:00" as the time since midnight; 24:00 is the day's end.
func parseClock(s string) (time.Duration, error) {
	if s == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, errPlain
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}
