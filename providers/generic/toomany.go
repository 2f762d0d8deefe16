package generic

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// TooMany is a 429 of our own, in the registries' form: the request is not sent,
// for what the registry has told of its limits leaves no room for it. The
// message is plain text without escapes.
func TooMany(req *http.Request, wait time.Duration, message string) *http.Response {
	body := `{"errors":[{"code":"TOOMANYREQUESTS","message":"` + message + `"}]}`
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return &http.Response{
		Status: "429 Too Many Requests", StatusCode: http.StatusTooManyRequests, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{
			"Content-Type": {"application/json"},
			"Retry-After":  {strconv.Itoa(int(wait/time.Second) + 1)},
		},
		ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)), Request: req,
	}
}
