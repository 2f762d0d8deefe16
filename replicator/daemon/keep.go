package daemon

import (
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
)

// tagFacts are what is known of one tag that is gone at its source, before it is
// removed from a destination. What the registries tell is looked at only once
// the rest speaks for it (looked).
type tagFacts struct {
	// selected: the route's filters still want the tag, and want it there; else why not.
	selected bool
	why      string
	oneWay   bool
	sharing  []string // other routes that want it there
	// fallback: it lists the referrers of both sides.
	fallback bool
	// subject is what a companion belongs to; subjectStays: a tag there names it.
	subject      digest.Digest
	subjectStays bool

	digest digest.Digest // what is to be removed
	record replicator.Record
	known  bool // record is one that is believed
	wrote  bool // we moved the tag there ourselves
	begun  bool // its record was given up for a removal that was cut off
	source replicator.Place
	route  string

	deleter bool // the client can remove a tag at all
	looked  bool
	// present is what the tag names there, empty: nothing.
	present digest.Digest
	// dropped: the manifest would go with the tag, and referrers are left to it.
	dropped   bool
	referrers int
}

// A keeping is why a tag that is gone at its source is not removed from a
// destination: the zero value lets it go. quiet is for what nobody has to look
// at; forget for what is no departure any more.
type keeping struct {
	why, hint     string
	quiet, forget bool
}

// keep decides whether one tag may be deleted. It knows neither the grace, nor
// how many may go at once, nor whether the source still lacks it.
func keep(f tagFacts) keeping {
	switch {
	case !f.selected:
		return keeping{why: "the route's filters leave it out: " + f.why, quiet: true}
	case !f.oneWay:
		return keeping{
			why:  "the two registries feed each other, so that it may have been lost as well as deleted",
			hint: "delete it at every end, or use `deletes: keep`",
		}
	case f.fallback:
		return keeping{why: "it lists the referrers of both sides", quiet: true}
	case len(f.sharing) > 0:
		return keeping{
			why:  "it is wanted there by route " + strings.Join(f.sharing, ", ") + " too",
			hint: "exclude it from the other route, or delete it by hand",
		}
	case f.begun && !f.known: // its record was this one until its removal began
	case !f.known:
		return keeping{why: "nothing is on record any more of who wrote it", quiet: true, forget: true}
	case f.record.Route != f.route || f.record.Source != f.source:
		return keeping{why: "it is on record as another's", quiet: true, forget: true}
	case f.record.Digest != f.digest:
		return keeping{why: "another image was proven there since", quiet: true, forget: true}
	case f.record.Unconfirmed:
		return keeping{why: "it was moved while the source did not answer, and has yet to be confirmed", quiet: true}
	case !f.wrote:
		return keeping{
			why:  "it was there before: this route has never written it",
			hint: "delete it by hand at the destination, if nobody needs it",
		}
	}
	switch {
	case f.subjectStays:
		return keeping{why: fmt.Sprintf("it belongs to %s, which stays", f.subject), quiet: true}
	case !f.deleter:
		return keeping{why: "the registry removes no tags", hint: "delete it by hand at the destination"}
	case !f.looked || f.present == "":
		return keeping{}
	case f.present != f.digest:
		return keeping{
			why:  fmt.Sprintf("somebody else has moved it to %s since it was proven as %s", f.present, f.digest),
			hint: "kept; delete it by hand at the destination, if nobody needs it",
		}
	case f.dropped && f.referrers > 0:
		return keeping{
			why:  fmt.Sprintf("the registry would remove %s with its last tag, and %d referrers (signatures, SBOMs) are left to it", f.digest, f.referrers),
			hint: "delete the referrers at the destination, or the image by hand with all that refers to it",
		}
	}
	return keeping{}
}
