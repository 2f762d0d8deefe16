package limit

import (
	"testing"
	"time"
)

func TestTableRate(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here:", err)
	}
	at := func(clock string) time.Time {
		v, err := time.Parse("2006-01-02 15:04:05", "2026-07-01 "+clock)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	day := []Window{{From: 8 * time.Hour, To: 18 * time.Hour, BytesPerSecond: 50}, {From: 22 * time.Hour, To: 2 * time.Hour, BytesPerSecond: 10}}
	for name, c := range map[string]struct {
		table Table
		at    string
		want  float64
	}{
		"no cap":                      {Table{}, "12:00:00", 0},
		"one rate holds always":       {Table{BytesPerSecond: 7}, "03:00:00", 7},
		"in the window":               {Table{Windows: day}, "08:00:00", 50},
		"its end is outside":          {Table{Windows: day}, "18:00:00", 0},
		"just before its end":         {Table{Windows: day}, "17:59:59", 50},
		"over midnight, before":       {Table{Windows: day}, "23:00:00", 10},
		"over midnight, after":        {Table{Windows: day}, "01:59:59", 10},
		"outside all":                 {Table{Windows: day}, "05:00:00", 0},
		"the location's clock":        {Table{Windows: day, Location: berlin}, "06:00:00", 50},
		"a window's own clock":        {Table{Windows: []Window{{From: 8 * time.Hour, To: 9 * time.Hour, BytesPerSecond: 5, Location: berlin}}}, "06:30:00", 5},
		"whole day":                   {Table{Windows: []Window{{BytesPerSecond: 3}}}, "13:00:00", 3},
		"the first that covers holds": {Table{Windows: append([]Window{{From: 9 * time.Hour, To: 10 * time.Hour, BytesPerSecond: 1}}, day...)}, "09:30:00", 1},
	} {
		if got := c.table.Rate(at(c.at)); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if NewBandwidth(Table{}) != nil || NewBandwidth(Table{Windows: []Window{{}}}) != nil {
		t.Error("a table without a cap made one")
	}
}
