# What Twinport needs of a repository of Artifact Registry: roles for its
# service account, and events by Pub/Sub.

terraform {
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
  }
}

variable "project" {
  type        = string
  description = "Project of the repository."
}

variable "location" {
  type        = string
  description = "Location of the repository, like europe-west1."
}

variable "repository" {
  type        = string
  description = "Name of the repository."
}

variable "service_account" {
  type        = string
  description = "E-mail of the service account Twinport runs as."
}

variable "kubernetes_service_account" {
  type        = string
  default     = ""
  description = "With GKE's workload identity: NAMESPACE/NAME of Twinport's service account in Kubernetes. Empty: it is not bound."
}

variable "destination" {
  type        = bool
  default     = false
  description = "Images are copied to this repository, so the account may push."
}

variable "create" {
  type        = bool
  default     = false
  description = "Twinport makes missing repositories of the project (create: {missing: true})."
}

variable "deletes" {
  type        = bool
  default     = false
  description = "A route carries deletions over to this destination (deletes: {mirror: …})."
}

variable "events" {
  type        = string
  default     = "none"
  description = "push, pull or none: how pushes are told. A destination alone needs none."
  validation {
    condition     = contains(["push", "pull", "none"], var.events)
    error_message = "events is push, pull or none."
  }
}

variable "hook_url" {
  type        = string
  default     = ""
  description = "https://YOUR-TWINPORT/hooks/NAME; also the audience of the token, webhook.google.audience."
}

resource "google_artifact_registry_repository_iam_member" "twinport" {
  project    = var.project
  location   = var.location
  repository = var.repository
  role       = var.destination ? (var.deletes ? "roles/artifactregistry.repoAdmin" : "roles/artifactregistry.writer") : "roles/artifactregistry.reader"
  member     = "serviceAccount:${var.service_account}"
}

# The reader's and writer's roles let nobody make repositories.
resource "google_project_iam_custom_role" "create" {
  count       = var.destination && var.create ? 1 : 0
  project     = var.project
  role_id     = "twinportCreate"
  title       = "Twinport: make repositories of Artifact Registry"
  permissions = ["artifactregistry.repositories.create", "artifactregistry.repositories.get"]
}

resource "google_project_iam_member" "create" {
  count   = var.destination && var.create ? 1 : 0
  project = var.project
  role    = google_project_iam_custom_role.create[0].id
  member  = "serviceAccount:${var.service_account}"
}

# Without a key: the pod's own token is exchanged for the service account's.
resource "google_service_account_iam_member" "workload" {
  count              = var.kubernetes_service_account == "" ? 0 : 1
  service_account_id = "projects/${var.project}/serviceAccounts/${var.service_account}"
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_service_account}]"
}

# Artifact Registry publishes to the topic of this very name.
resource "google_pubsub_topic" "gcr" {
  count   = var.events == "none" ? 0 : 1
  project = var.project
  name    = "gcr"
}

resource "google_service_account" "push" {
  count        = var.events == "push" ? 1 : 0
  project      = var.project
  account_id   = "twinport-push"
  display_name = "Signs Pub/Sub's deliveries to Twinport; webhook.google.email"
}

resource "google_pubsub_subscription" "twinport" {
  count   = var.events == "none" ? 0 : 1
  project = var.project
  name    = "twinport"
  topic   = google_pubsub_topic.gcr[0].id

  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }

  retry_policy {
    minimum_backoff = "5s"
    maximum_backoff = "300s"
  }

  dynamic "push_config" {
    for_each = var.events == "push" ? [1] : []
    content {
      push_endpoint = var.hook_url
      oidc_token {
        service_account_email = google_service_account.push[0].email
        audience              = var.hook_url
      }
    }
  }
}

resource "google_pubsub_subscription_iam_member" "twinport" {
  count        = var.events == "pull" ? 1 : 0
  project      = var.project
  subscription = google_pubsub_subscription.twinport[0].name
  role         = "roles/pubsub.subscriber"
  member       = "serviceAccount:${var.service_account}"
}

output "push_email" {
  value       = var.events == "push" ? google_service_account.push[0].email : null
  description = "webhook.google.email"
}
