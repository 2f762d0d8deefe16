package api

import (
	"net/http"
	"net/http/pprof" //nolint:gosec // nothing of ours serves the mux it registers with
)

// Profiles serves GET /debug/pprof/heap (`?gc=1` collects first), goroutine
// (`?debug=2` as text) and profile (CPU, for `?seconds=`) as `go tool pprof`
// reads them, with the token asked for as Handler does. They hold names of
// functions, sizes and numbers, never what is in memory; what would tell the
// command line is left out.
func Profiles(token func() (string, error)) http.Handler {
	mux := http.NewServeMux()
	for _, name := range []string{"heap", "goroutine"} {
		mux.Handle("GET /debug/pprof/"+name, pprof.Handler(name))
	}
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	return Authorized(mux, token)
}
