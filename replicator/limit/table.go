package limit

import "time"

// A Table says how many bytes per second may flow at which time of day.
type Table struct {
	// BytesPerSecond holds at all times where there are no Windows; 0: no cap.
	BytesPerSecond float64
	// Windows are read in order, the first that covers the time of day holds;
	// outside all of them there is no cap.
	Windows []Window
	// Location is where windows without their own tell the time; nil: UTC.
	Location *time.Location
}

// A Window is one line of a Table.
type Window struct {
	// From and To are times since midnight by the wall clock; To is not part
	// of the window. From after To runs over midnight, From equal to To is the
	// whole day.
	From, To time.Duration
	// BytesPerSecond of 0 or less is no cap.
	BytesPerSecond float64
	// Location is where From and To are told; nil: the table's.
	Location *time.Location
}

// Rate is the cap at a time in bytes per second, 0 where there is none.
func (t Table) Rate(at time.Time) float64 {
	if len(t.Windows) == 0 {
		return max(0, t.BytesPerSecond)
	}
	for _, w := range t.Windows {
		location := w.Location
		if location == nil {
			location = t.Location
		}
		if location == nil {
			location = time.UTC
		}
		hour, minute, second := at.In(location).Clock()
		if w.covers(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second) {
			return max(0, w.BytesPerSecond)
		}
	}
	return 0
}

// empty tells whether the table never caps anything.
func (t Table) empty() bool {
	for _, w := range t.Windows {
		if w.BytesPerSecond > 0 {
			return false
		}
	}
	return len(t.Windows) > 0 || t.BytesPerSecond <= 0
}

func (w Window) covers(day time.Duration) bool {
	switch {
	case w.From == w.To:
		return true
	case w.From < w.To:
		return w.From <= day && day < w.To
	default:
		return day >= w.From || day < w.To
	}
}
