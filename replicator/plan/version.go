package plan

import (
	"strings"

	"github.com/Masterminds/semver/v3"
)

// version reads a tag as a semantic version, with or without "v" and with parts
// left out; Helm writes a version's "+" as "_", since tags have no "+".
func version(tag string) *semver.Version {
	if tag == "" || len(tag) > 128 || !strings.ContainsAny(tag[:min(len(tag), 2)], "0123456789") {
		return nil // cheap: most tags that are no versions end here
	}
	v, err := semver.NewVersion(tag)
	if err != nil {
		if !strings.Contains(tag, "_") {
			return nil
		}
		if v, err = semver.NewVersion(strings.Replace(tag, "_", "+", 1)); err != nil {
			return nil
		}
	}
	return v
}

func (ru *rule) selectsVersion(tag string) (bool, string) {
	of := `semver "` + ru.Tags.Semver + `" of route ` + ru.Name
	v := version(tag)
	switch {
	case v == nil:
		return false, "tag " + tag + " is no version, for " + of
	case ru.semver.Check(v):
		return true, ""
	case v.Prerelease() != "":
		release, err := v.SetPrerelease("")
		if err == nil && ru.semver.Check(&release) {
			return false, "tag " + tag + " is a pre-release, which " + of + " does not name"
		}
	}
	return false, "tag " + tag + " is outside " + of
}
