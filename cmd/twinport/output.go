package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// printJSON prints one value, indented.
func printJSON(w io.Writer, v any) error {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(body))
	return err
}

// A grid is a table with a head; cells hold no tabs or newlines.
type grid struct {
	w *tabwriter.Writer
}

func newGrid(w io.Writer, head ...string) *grid {
	g := &grid{tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)}
	g.row(head...)
	return g
}

var cellBreaks = strings.NewReplacer("\t", " ", "\n", " ", "\r", " ")

func (g *grid) row(cells ...string) {
	for i, c := range cells {
		if c == "" {
			c = "-"
		}
		cells[i] = plain(cellBreaks.Replace(c))
	}
	fmt.Fprintln(g.w, strings.Join(cells, "\t")) // Flush tells of errors
}

func (g *grid) flush() error { return g.w.Flush() }

// plain drops what is not printable, marks that turn text around among it: what
// registries say reaches terminals.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
}

func short(digest *string) string {
	if digest == nil {
		return "-"
	}
	algorithm, hex, ok := strings.Cut(*digest, ":")
	if !ok || len(hex) < 12 {
		return *digest
	}
	return algorithm + ":" + hex[:12]
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// seconds shows a duration as people say it: 340ms, 12s, 3m05s, 2h10m, 4d3h.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

func ago(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return seconds(max(time.Since(*t).Seconds(), 0)) + " ago"
}

// size shows bytes in binary units, as the config writes them.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[unit])
}
