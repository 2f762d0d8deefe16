package generic_test

import (
	"time"

	"github.com/opencontainers/go-digest"
)

var modTime time.Time

func asDigest(s string) digest.Digest { return digest.Digest(s) }
