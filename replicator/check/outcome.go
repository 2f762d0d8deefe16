package check

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twinport/twinport/replicator/oci"
)

// An outcome is a Check before it has its name.
type outcome struct {
	state        State
	detail, hint string
}

func ok(format string, args ...any) outcome {
	return outcome{state: OK, detail: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) outcome {
	return outcome{state: Skipped, detail: fmt.Sprintf(format, args...)}
}

func warning(hint, format string, args ...any) outcome {
	return outcome{state: Warning, detail: fmt.Sprintf(format, args...), hint: hint}
}

func failure(hint, format string, args ...any) outcome {
	return outcome{state: Failed, detail: fmt.Sprintf(format, args...), hint: hint}
}

// failed tells an error with its own hint.
func failed(err error) outcome {
	detail, hint := told(err)
	return outcome{state: Failed, detail: detail, hint: hint}
}

// but makes an outcome that is well a warning.
func (o outcome) but(err error) outcome {
	detail, hint := told(err)
	if o.state == OK {
		o.state, o.hint = Warning, hint
		o.detail += "; got over: " + detail
	}
	return o
}

// late is what a step's context ends with.
type late time.Duration

func (l late) Error() string { return "no answer within " + time.Duration(l).String() }

// told takes an error apart, leaving out what its reader knows: the registry.
func told(err error) (detail, hint string) {
	var (
		throttled *oci.ThrottledError
		refused   *oci.RegistryError
	)
	if errors.As(err, &refused) {
		e := *refused
		hint, e.Hint = e.Hint, ""
		detail = strings.TrimPrefix(strings.TrimPrefix(e.Error(), e.Registry), ": ")
	} else {
		detail = err.Error()
	}
	switch {
	case errors.As(err, &throttled):
		hint = "the registry throttles this account or address; try again later"
		if throttled.Wait > 0 {
			hint = fmt.Sprintf("the registry asks to wait %s; try again then", throttled.Wait.Round(time.Second))
		}
	case hint == "" && unanswered(err):
		hint = "look whether the registry is up, and what stands between (proxy, firewall)"
	}
	return detail, hint
}

// unanswered tells whether an error says that nobody is there.
func unanswered(err error) bool {
	return errors.Is(err, oci.ErrUnreachable) || errors.Is(err, context.DeadlineExceeded)
}
