package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// redacted is what every secret prints as.
const redacted = "<redacted>"

// maxSecret bounds a secret's file, in bytes.
const maxSecret = 64 << 10

// A Secret is a password, token or key: `{env: NAME}`, `{file: PATH}` or a
// literal. It prints as <redacted> in every way of printing; only Value tells
// it. The zero Secret is none. Copies share what a file held last.
type Secret struct {
	box *secretBox
}

// secretBox makes two pointers of one: fmt follows the first one when a verb
// does not fit a field that it may not ask for its methods.
type secretBox struct{ held *heldSecret }

type heldSecret struct {
	origin string // "literal", "env NAME", "file PATH"
	path   string // of a file

	mu      sync.Mutex
	value   string
	stat    os.FileInfo
	settled bool // the file was old enough when read to tell by its times whether it changed
}

// NewSecret is a literal one.
func NewSecret(value string) Secret {
	return newSecret(&heldSecret{origin: "literal", value: value})
}

func envSecret(name, value string) Secret {
	return newSecret(&heldSecret{origin: "env " + name, value: value})
}

func fileSecret(path, value string) Secret {
	return newSecret(&heldSecret{origin: "file " + path, path: path, value: value})
}

func newSecret(h *heldSecret) Secret { return Secret{&secretBox{h}} }

// IsZero tells that no secret is configured.
func (s Secret) IsZero() bool { return s.box == nil }

// Origin says where the secret comes from: "literal", "env NAME", "file PATH".
func (s Secret) Origin() string {
	if s.box == nil {
		return "none"
	}
	return s.box.held.origin
}

// Value is the secret itself. A file is read again when it changed; while it
// is away, empty or unreadable, what it held last still counts, so that a
// rotation in steps refuses nobody. The zero Secret gives an error.
func (s Secret) Value() (string, error) {
	if s.box == nil {
		return "", errors.New("no secret is configured")
	}
	h := s.box.held
	if h.path == "" {
		if h.value == "" {
			return "", fmt.Errorf("the secret of %s is not set", h.origin)
		}
		return h.value, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	stat, err := os.Stat(h.path)
	if err == nil && h.settled && os.SameFile(stat, h.stat) && stat.ModTime().Equal(h.stat.ModTime()) && stat.Size() == h.stat.Size() {
		return h.value, nil
	}
	if err == nil {
		var value string
		if value, err = readSecret(h.path, readFile); err == nil {
			// A second write within the file system's tick leaves the times as
			// they are: young files are read each time.
			h.value, h.stat, h.settled = value, stat, time.Since(stat.ModTime()) > 3*time.Second
			return h.value, nil
		}
	}
	if h.value != "" {
		return h.value, nil
	}
	return "", fmt.Errorf("read the secret of %s: %w", h.origin, err)
}

var errEmptySecret = errors.New("it is empty")

// readSecret is a file's content without the line end that editors add.
func readSecret(path string, read func(string) ([]byte, error)) (string, error) {
	data, err := read(path)
	if err != nil {
		return "", err
	}
	if len(data) > maxSecret {
		return "", fmt.Errorf("it is larger than %d KiB", maxSecret>>10)
	}
	data = bytes.TrimRight(data, "\r\n")
	if len(bytes.TrimSpace(data)) == 0 {
		return "", errEmptySecret
	}
	return string(data), nil
}

// readFile reads a regular file of at most the size a config may have.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile+1))
}

// Format prints <redacted> under every verb.
func (s Secret) Format(state fmt.State, verb rune) {
	if verb == 'q' {
		_, _ = io.WriteString(state, `"`+redacted+`"`)
		return
	}
	_, _ = io.WriteString(state, redacted)
}

// String is <redacted>.
func (s Secret) String() string { return redacted }

// GoString is <redacted>.
func (s Secret) GoString() string { return redacted }

// MarshalText is <redacted>, for JSON, XML and loggers.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalYAML is <redacted>.
func (s Secret) MarshalYAML() (any, error) { return redacted, nil }
