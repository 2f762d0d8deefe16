package config

import (
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "1.5d": 36 * time.Hour, "1h30m": 90 * time.Minute,
		"100ms": 100 * time.Millisecond, "12h1d": 36 * time.Hour, "-5m": -5 * time.Minute, "0s": 0, ".5d": 12 * time.Hour, "36500d": 876000 * time.Hour,
	} {
		if got, err := parseDuration(s); got != want || err != nil {
			t.Errorf("%s: got %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "5", "d", "5x", "5 m", "1d-1h", "36501d", "99999999999d", "-", "1..5d", "5dd", "1e3s", "5D", "９d"} {
		if got, err := parseDuration(s); err == nil {
			t.Errorf("%s: got %v", s, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{
		"1B": 1, "1kB": 1000, "1KiB": 1024, "1.5MiB": 3 << 19, "10GiB": 10 << 30, "2 GB": 2e9, "3MB": 3e6, "0B": 0,
	} {
		if got, err := parseSize(s); got != want || err != nil {
			t.Errorf("%s: got %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "5", "KB", "5KB", "5TB", "-5MB", "1..5MB", "99999999999999GiB", "5 M B"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%s: got %v", s, got)
		}
	}
}

func TestParsePercentAndClock(t *testing.T) {
	if got, err := parsePercent("5%"); got != 0.05 || err != nil {
		t.Errorf("5%%: %v, %v", got, err)
	}
	for _, s := range []string{"5", "0%", "101%", "x%", "%", "-1%", "NaN%"} {
		if got, err := parsePercent(s); err == nil {
			t.Errorf("%s: got %v", s, got)
		}
	}
	for s, want := range map[string]time.Duration{"00:00": 0, "08:30": 510 * time.Minute, "24:00": 24 * time.Hour} {
		if got, err := parseClock(s); got != want || err != nil {
			t.Errorf("%s: got %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "8:00", "24:01", "12:60", "12", "12:00:00"} {
		if got, err := parseClock(s); err == nil {
			t.Errorf("%s: got %v", s, got)
		}
	}
}

func TestMeant(t *testing.T) {
	words := []string{"listen", "admin", "us", "eu", "repository"}
	for word, want := range map[string]string{"listn": "listen", "LISTEN": "listen", "su": "us", "eus": "eu", "repo": "repository", "xyz": "", "": "", "amdin": "admin"} {
		if got := meant(word, words); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}
