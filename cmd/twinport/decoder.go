package main

import (
	"github.com/twinport/twinport/config"
	"github.com/twinport/twinport/providers/acr"
	"github.com/twinport/twinport/providers/artifactory"
	"github.com/twinport/twinport/providers/dockerhub"
	"github.com/twinport/twinport/providers/ecr"
	"github.com/twinport/twinport/providers/gcr"
	"github.com/twinport/twinport/providers/generic"
	"github.com/twinport/twinport/providers/ghcr"
	"github.com/twinport/twinport/providers/gitea"
	"github.com/twinport/twinport/providers/harbor"
	"github.com/twinport/twinport/providers/nexus"
	"github.com/twinport/twinport/providers/quay"
	"github.com/twinport/twinport/providers/zot"
	"github.com/twinport/twinport/replicator/intake"
)

// senders keeps the certificates of SNS, whatever is reloaded.
var senders = ecr.NewSenders(nil)

// decoder reads what a registry sends, by its kind.
func decoder(r *config.Registry) intake.Decoder {
	switch r.Kind {
	case "harbor":
		return harbor.Webhook{}
	case "zot":
		return zot.Webhook{}
	case "quay":
		return quay.Webhook{}
	case "ghcr":
		return ghcr.Webhook{}
	case "dockerhub":
		return dockerhub.Webhook{}
	case "gitea":
		return gitea.Webhook{}
	case "nexus":
		return nexus.Webhook{Prefix: r.Prefix}
	case "artifactory":
		return artifactory.Webhook{Host: r.Host}
	case "ecr":
		return ecr.WebhookOf(r.Host, senders)
	case "acr":
		return acr.Webhook{}
	case "gcr":
		return gcr.Webhook{Host: r.Host}
	}
	return generic.Webhook{} // of distribution, and of GitLab's registry
}
