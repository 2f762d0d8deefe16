package generic

import (
	"strings"
)

// Bounds on a challenge, which is a registry's word.
const (
	maxChallenge       = 8 << 10
	maxChallenges      = 16
	maxChallengeParams = 32
)

// A challenge is one of a 401's (RFC 9110, section 11.6.1); scheme and names
// of params are in lower case.
type challenge struct {
	scheme string
	params map[string]string
}

// parseChallenges reads WWW-Authenticate headers, leniently: what it cannot
// read it leaves out.
func parseChallenges(values []string) []challenge {
	var challenges []challenge
	for _, value := range values {
		if len(value) > maxChallenge {
			continue
		}
		s := value
		for s != "" && len(challenges) < maxChallenges {
			s = strings.TrimLeft(s, " \t,")
			word, rest := cutToken(s)
			if word == "" {
				if s != "" {
					s = s[1:]
				}
				continue
			}
			after := strings.TrimLeft(rest, " \t")
			if !strings.HasPrefix(after, "=") {
				challenges = append(challenges, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
				s = rest
				continue
			}
			var param string
			param, s = cutValue(strings.TrimLeft(after[1:], " \t"))
			if n := len(challenges); n > 0 && len(challenges[n-1].params) < maxChallengeParams {
				key := strings.ToLower(word)
				if _, twice := challenges[n-1].params[key]; !twice {
					challenges[n-1].params[key] = param
				}
			}
		}
	}
	return challenges
}

func cutToken(s string) (token, rest string) {
	i := 0
	for i < len(s) && isTokenChar(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

// cutValue reads a token or a quoted string.
func cutValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		i := strings.IndexAny(s, " \t,")
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i+1 < len(s) {
				i++
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

func isTokenChar(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
