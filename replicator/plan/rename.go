package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinport/twinport/replicator/oci"
)

// A rename is a compiled template: literal text and placeholders in turn. Without parts
// it keeps names as they are.
type rename struct {
	parts    []part
	registry string
	// varies: two repositories of one namespace become two.
	varies bool
}

type part struct {
	// placeholder says that text is one's name and no literal.
	placeholder bool
	text        string
}

// placeholders in the order messages name them.
var placeholders = []string{"repository", "namespace", "name", "registry", "flat"}

// compileRename reads a template such as "dr/{repository}". A template whose
// names no registry would take is refused here, not at the first push.
func compileRename(template, registry string) (rename, error) {
	if template == "" || template == "{repository}" {
		return rename{varies: true}, nil
	}
	rn := rename{registry: registry}
	for rest := template; rest != ""; {
		at := strings.IndexAny(rest, "{}")
		if at < 0 {
			at = len(rest)
		}
		if at > 0 {
			rn.parts = append(rn.parts, part{text: rest[:at]})
			rest = rest[at:]
			continue
		}
		end := strings.IndexByte(rest, '}')
		if rest[0] == '}' || end < 0 {
			return rename{}, fmt.Errorf("%q has a brace without its pair", template)
		}
		p := part{placeholder: true, text: rest[1:end]}
		if !slices.Contains(placeholders, p.text) {
			return rename{}, fmt.Errorf("{%s} is none of {%s}", p.text, strings.Join(placeholders, "} {"))
		}
		rn.varies = rn.varies || p.text == "repository" || p.text == "name" || p.text == "flat"
		rn.parts = append(rn.parts, p)
		rest = rest[end+1:]
	}
	if _, err := rn.apply("team/app"); err != nil {
		return rename{}, fmt.Errorf("team/app would become no repository name: %w", err)
	}
	return rn, nil
}

// apply renames a source repository (oci.ErrInvalid: to what is no name). An
// empty {namespace} takes one slash with it: the one after it, or, at the
// template's end, the one before.
func (rn rename) apply(repository string) (string, error) {
	if rn.parts == nil {
		return repository, nil
	}
	namespace, name := "", repository
	if at := strings.LastIndexByte(repository, '/'); at >= 0 {
		namespace, name = repository[:at], repository[at+1:]
	}
	var b strings.Builder
	dropSlash := false
	for i, p := range rn.parts {
		text := p.text
		if p.placeholder {
			switch p.text {
			case "repository":
				text = repository
			case "namespace":
				text = namespace
			case "name":
				text = name
			case "registry":
				text = rn.registry
			case "flat":
				text = strings.ReplaceAll(repository, "/", "-")
			}
			if text == "" && p.text == "namespace" {
				if i == len(rn.parts)-1 {
					return checked(strings.TrimSuffix(b.String(), "/"))
				}
				dropSlash = true
				continue
			}
		}
		if dropSlash && !p.placeholder {
			text = strings.TrimPrefix(text, "/")
		}
		dropSlash = false
		b.WriteString(text)
	}
	return checked(b.String())
}

func checked(name string) (string, error) { return name, oci.CheckRepository(name) }
