package generic

import (
	"errors"
	"net/url"
	"strings"
)

const maxLink = 16 << 10

// nextPage gives the address of the next page (RFC 8288, rel="next"), nil where
// there is none. It is followed on the registry itself and the list's own path
// alone: only its query counts.
func nextPage(links []string, from, base *url.URL) (*url.URL, error) {
	for _, link := range links {
		if len(link) > maxLink { // it may name a next page: the list is not known to end here
			return nil, errors.New("a Link header is too long to be read")
		}
	}
	target := nextLink(links)
	if target == "" {
		return nil, nil
	}
	ref, err := url.Parse(target)
	if err != nil {
		return nil, errors.New("the link to the next page is no address")
	}
	u := from.ResolveReference(ref)
	if !strings.EqualFold(u.Hostname(), base.Hostname()) && !strings.EqualFold(u.Hostname(), from.Hostname()) {
		return nil, errors.New("the link to the next page leads to another host")
	}
	if strings.TrimSuffix(u.Path, "/") != strings.TrimSuffix(base.Path, "/") {
		return nil, errors.New("the link to the next page leads to another list")
	}
	return withQuery(*base, u.RawQuery), nil
}

// nextLink finds the target of rel="next" in Link headers; what it cannot read
// it leaves out.
func nextLink(values []string) string {
	for _, value := range values {
		for value != "" {
			start := strings.IndexByte(value, '<')
			if start < 0 {
				break
			}
			target, rest, ok := strings.Cut(value[start+1:], ">")
			if !ok {
				break
			}
			var next bool
			next, value = linkParams(rest)
			if next && target != "" {
				return target
			}
		}
	}
	return ""
}

// linkParams reads the params after a target up to the comma that ends them.
func linkParams(s string) (next bool, rest string) {
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" || s[0] == ',' {
			return next, strings.TrimPrefix(s, ",")
		}
		if s[0] != ';' {
			s = s[1:]
			continue
		}
		name, after := cutToken(strings.TrimLeft(s[1:], " \t"))
		after = strings.TrimLeft(after, " \t")
		if !strings.HasPrefix(after, "=") {
			s = after
			continue
		}
		var value string
		value, s = cutLinkValue(strings.TrimLeft(after[1:], " \t"))
		if strings.EqualFold(name, "rel") {
			for _, rel := range strings.Fields(value) {
				next = next || strings.EqualFold(rel, "next")
			}
		}
	}
}

// cutLinkValue is cutValue where a semicolon ends a value too.
func cutLinkValue(s string) (value, rest string) {
	if strings.HasPrefix(s, `"`) {
		return cutValue(s)
	}
	i := strings.IndexAny(s, " \t,;")
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:]
}
