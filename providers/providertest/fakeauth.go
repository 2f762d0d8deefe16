package providertest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// scopesOf is what a request needs.
func scopesOf(r *http.Request, parts []string) []string {
	switch {
	case r.URL.Path == "/v2/_catalog":
		return []string{"registry:catalog:*"}
	case parts == nil:
		return nil
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return []string{"repository:" + parts[1] + ":pull"}
	case isErase(r, parts):
		return []string{"repository:" + parts[1] + ":delete"}
	}
	scopes := []string{"repository:" + parts[1] + ":pull", "repository:" + parts[1] + ":push"}
	if from := r.URL.Query().Get("from"); from != "" {
		scopes = append(scopes, "repository:"+from+":pull")
	}
	return scopes
}

func (f *Fake) authorized(r *http.Request, parts []string) bool {
	if f.Username == "" {
		return true
	}
	if !f.Tokens {
		username, password, _ := r.BasicAuth()
		return username == f.Username && password == f.Password
	}
	value, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	f.mu.Lock()
	defer f.mu.Unlock()
	token, ok := f.tokens[value]
	if !ok || time.Now().After(token.expires) {
		return false
	}
	for _, scope := range scopesOf(r, parts) {
		if !slices.Contains(token.scopes, scope) {
			return false
		}
	}
	return true
}

func (f *Fake) challenge(w http.ResponseWriter, r *http.Request, parts []string) {
	header := `Basic realm="fake, of registry"`
	if f.Tokens {
		header = fmt.Sprintf(`Bearer realm="http://%s/token",service="fake"`, r.Host)
		if scopes := scopesOf(r, parts); scopes != nil {
			header += `,scope="` + strings.Join(scopes, " ") + `"`
		}
	}
	w.Header().Set("WWW-Authenticate", header)
	Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
}

// serveToken gives a token for what is asked, to who knows the password.
func (f *Fake) serveToken(w http.ResponseWriter, r *http.Request) {
	username, password, _ := r.BasicAuth()
	asked := r.URL.Query()["scope"]
	if r.Method == http.MethodPost {
		if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "refresh_token" {
			Fail(w, http.StatusBadRequest, "UNSUPPORTED", "grant type")
			return
		}
		username, password = f.Username, r.PostForm.Get("refresh_token")
		asked = strings.Fields(r.PostForm.Get("scope"))
	}
	if username != f.Username || password != f.Password {
		Fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "wrong account")
		return
	}
	life := time.Hour
	if f.TokenSeconds > 0 {
		life = time.Duration(f.TokenSeconds) * time.Second
	}
	token := fakeToken{expires: time.Now().Add(life)}
	for _, scope := range asked {
		for _, s := range strings.Fields(scope) {
			i := strings.LastIndex(s, ":")
			if i < 0 {
				continue
			}
			for _, action := range strings.Split(s[i+1:], ",") {
				token.scopes = append(token.scopes, s[:i+1]+action)
			}
		}
	}
	f.mu.Lock()
	f.next++
	value := "token-of-the-fake-" + strconv.Itoa(f.next)
	if f.tokens == nil {
		f.tokens = make(map[string]fakeToken)
	}
	f.tokens[value] = token
	f.mu.Unlock()
	answer := map[string]any{"token": value, "expires_in": 3600}
	if f.TokenSeconds > 0 {
		answer = map[string]any{"access_token": value, "expires_in": f.TokenSeconds}
	}
	_ = json.NewEncoder(w).Encode(answer)
}
