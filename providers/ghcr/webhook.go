package ghcr

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/twinport/twinport/replicator"
	"github.com/twinport/twinport/replicator/oci"
)

// Webhook reads GitHub's events package and registry_package, of which one is
// enough: they tell the same. The zero value is ready.
type Webhook struct{}

// Open takes the JSON out of the form that GitHub sends by its content type
// application/x-www-form-urlencoded.
func (Webhook) Open(header http.Header, body []byte) []byte {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return body
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return body
	}
	return []byte(form.Get("payload"))
}

type payload struct {
	Action          string `json:"action"`
	Package         *pack  `json:"package"`
	RegistryPackage *pack  `json:"registry_package"`
}

type pack struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Type      string `json:"package_type"`
	UpdatedAt string `json:"updated_at"`
	Owner     struct {
		Login string `json:"login"`
	} `json:"owner"`
	Version struct {
		Version   string   `json:"version"`
		URL       string   `json:"package_url"`
		UpdatedAt string   `json:"updated_at"`
		CreatedAt string   `json:"created_at"`
		Container lenience `json:"container_metadata"`
	} `json:"package_version"`
}

// lenience is what a container's version tells; GitHub sends null or an empty
// list in its place where it knows nothing.
type lenience struct {
	Tag struct {
		Name   string `json:"name"`
		Digest string `json:"digest"`
	} `json:"tag"`
	Manifest struct {
		Digest    string `json:"digest"`
		MediaType string `json:"media_type"`
	} `json:"manifest"`
}

// UnmarshalJSON takes what is no object for nothing.
func (l *lenience) UnmarshalJSON(text []byte) error {
	type plain lenience
	if len(text) == 0 || text[0] != '{' {
		return nil
	}
	var p plain
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	*l = lenience(p)
	return nil
}

// Decode reads one event of GitHub. Others than those of packages are ignored,
// so that a hook that sends everything does no harm.
func (Webhook) Decode(header http.Header, body []byte) replicator.Decoded {
	var d replicator.Decoded
	switch event := header.Get("X-GitHub-Event"); event {
	case "ping":
		d.Ping = true
		return d
	case "package", "registry_package", "":
	default:
		d.Ignored++
		return d
	}
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		d.Refuse("an event of another shape")
		return d
	}
	about := p.Package
	if about == nil {
		about = p.RegistryPackage
	}
	switch {
	case about == nil:
		d.Refuse("no event of a package")
	case !strings.EqualFold(about.Type, "container"):
		d.Ignored++
	case p.Action == "published" || p.Action == "updated":
		d.Add(about.event())
	default:
		d.Refuse(fmt.Sprintf("unknown action %.40q", p.Action))
	}
	return d
}

func (p *pack) event() replicator.Event {
	v := p.Version
	e := replicator.Event{
		Action: replicator.Push, Repository: p.repository(), Tag: v.Container.Tag.Name, MediaType: v.Container.Manifest.MediaType,
	}
	for _, s := range []string{v.Container.Tag.Digest, v.Container.Manifest.Digest, v.Version} {
		if oci.IsDigest(s) {
			e.Digest = digest.Digest(s)
			break
		}
	}
	for _, s := range []string{v.UpdatedAt, v.CreatedAt, p.UpdatedAt} {
		if at, err := time.Parse(time.RFC3339Nano, s); err == nil && at.Year() > 2000 {
			e.PushedAt, e.SenderTime = at.UTC(), true
			break
		}
	}
	return e
}

// repository is the name at ghcr.io, in lower case as there: by the address of
// what was pushed (ghcr.io/team/app:v1, or with nothing after the colon), since
// the namespace may be empty or repeat the owner.
func (p *pack) repository() string {
	if _, name, ok := strings.Cut(p.Version.URL, "/"); ok {
		if at := strings.IndexByte(name, '@'); at >= 0 {
			name = name[:at]
		}
		if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
			name = name[:colon]
		}
		if strings.Contains(name, "/") {
			return strings.ToLower(name)
		}
	}
	owner := p.Namespace
	if owner == "" {
		owner = p.Owner.Login
	}
	return strings.ToLower(owner + "/" + p.Name)
}
