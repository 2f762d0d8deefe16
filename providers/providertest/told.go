package providertest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// A pushed is one manifest that a registry has taken.
type pushed struct {
	repository, tag string // by digest alone: no tag
	digest          digest.Digest
	mediaType       string
	size            int64
}

// taken has a handler answer, and tells what manifest it took, if it did.
func taken(w http.ResponseWriter, r *http.Request, by http.Handler) (p pushed, ok bool) {
	repo, what, reference, writing := writes(r)
	if !writing || what != "manifests" || r.Method != http.MethodPut {
		by.ServeHTTP(w, r)
		return pushed{}, false
	}
	p = pushed{repository: repo, tag: reference, mediaType: r.Header.Get("Content-Type"), size: r.ContentLength}
	answer := &answered{ResponseWriter: w}
	by.ServeHTTP(answer, r)
	p.digest = digest.Digest(w.Header().Get("Docker-Content-Digest"))
	if strings.Contains(reference, ":") {
		p.tag, p.digest = "", digest.Digest(reference)
	}
	return p, answer.status == http.StatusCreated
}

// answered keeps an answer's status.
type answered struct {
	http.ResponseWriter
	status int
}

func (a *answered) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (a *answered) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func encoded(doc any) []byte {
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err) // plain values
	}
	return text
}

// eventBridge is a push as ECR tells it by EventBridge.
func eventBridge(account, region string, id int, p pushed) []byte {
	detail := map[string]string{
		"result": "SUCCESS", "action-type": "PUSH", "repository-name": p.repository, "image-digest": p.digest.String(),
		"manifest-media-type": p.mediaType,
	}
	if p.tag != "" {
		detail["image-tag"] = p.tag
	}
	return encoded(map[string]any{
		"version": "0", "id": "5d0c7c1e-8f0b-4a53-9d5e-" + strconv.Itoa(100_000_000_000+id), "detail-type": "ECR Image Action",
		"source": "aws.ecr", "account": account, "region": region, "time": time.Now().UTC().Format(time.RFC3339), "resources": []any{},
		"detail": detail,
	})
}

// registryEvent is a push as ACR's webhook tells it.
func registryEvent(service string, id int, p pushed) []byte {
	target := map[string]any{
		"mediaType": p.mediaType, "size": p.size, "length": p.size, "digest": p.digest, "repository": p.repository,
	}
	if p.tag != "" {
		target["tag"] = p.tag
	}
	return encoded(map[string]any{
		"id": "2f7b0d52-5d1c-4f7c-a7f0-" + strconv.Itoa(100_000_000_000+id), "timestamp": time.Now().UTC().Format(time.RFC3339Nano),
		"action": "push", "target": target,
		"request": map[string]string{"id": strconv.Itoa(id), "host": service, "method": http.MethodPut, "useragent": "fake"},
	})
}

// insertion is a push as Artifact Registry publishes it to the topic gcr.
func insertion(host string, p pushed) []byte {
	doc := map[string]string{"action": "INSERT", "digest": host + "/" + p.repository + "@" + p.digest.String()}
	if p.tag != "" {
		doc["tag"] = host + "/" + p.repository + ":" + p.tag
	}
	return encoded(doc)
}
