# What Twinport needs of an Azure Container Registry: an identity with the
# roles of its part, and events by a webhook or by Event Grid.

terraform {
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.0"
    }
  }
}

variable "registry_name" {
  type        = string
  description = "Name of the registry, without .azurecr.io."
}

variable "resource_group" {
  type        = string
  description = "Its resource group."
}

variable "principal_id" {
  type        = string
  default     = ""
  description = "Object ID of the identity Twinport runs as (managed identity, workload identity or service principal). Empty: one is made, for oidc_issuer."
}

variable "oidc_issuer" {
  type        = string
  default     = ""
  description = "With AKS's workload identity: the cluster's OIDC issuer URL."
}

variable "service_account" {
  type        = string
  default     = "twinport:twinport"
  description = "With oidc_issuer: NAMESPACE:NAME of Twinport's service account."
}

variable "destination" {
  type        = bool
  default     = false
  description = "Images are copied to this registry, so the identity may push."
}

variable "abac" {
  type        = bool
  default     = false
  description = "The registry's role assignments have conditions (ABAC); it then ignores AcrPull and AcrPush."
}

variable "deletes" {
  type        = bool
  default     = false
  description = "A route carries deletions over to this destination (deletes: {mirror: …})."
}

variable "events" {
  type        = string
  default     = "none"
  description = "webhook, eventgrid or none: how pushes are told. A destination alone needs none."
  validation {
    condition     = contains(["webhook", "eventgrid", "none"], var.events)
    error_message = "events is webhook, eventgrid or none."
  }
}

variable "hook_url" {
  type        = string
  default     = ""
  description = "https://YOUR-TWINPORT/hooks/NAME"
}

variable "hook_secret" {
  type        = string
  default     = ""
  sensitive   = true
  description = "The registry's webhook.secret."
}

data "azurerm_container_registry" "this" {
  name                = var.registry_name
  resource_group_name = var.resource_group
}

# Without a secret: the pod's own token is taken for the identity's.
resource "azurerm_user_assigned_identity" "twinport" {
  count               = var.principal_id == "" ? 1 : 0
  name                = "twinport-${var.registry_name}"
  location            = data.azurerm_container_registry.this.location
  resource_group_name = var.resource_group
}

resource "azurerm_federated_identity_credential" "twinport" {
  count               = var.principal_id == "" && var.oidc_issuer != "" ? 1 : 0
  name                = "twinport"
  resource_group_name = var.resource_group
  parent_id           = azurerm_user_assigned_identity.twinport[0].id
  audience            = ["api://AzureADTokenExchange"]
  issuer              = var.oidc_issuer
  subject             = "system:serviceaccount:${var.service_account}"
}

locals {
  principal = var.principal_id == "" ? azurerm_user_assigned_identity.twinport[0].principal_id : var.principal_id
  roles = var.abac ? concat(
    ["Container Registry Repository Catalog Lister"],
    [var.destination ? (var.deletes ? "Container Registry Repository Contributor" : "Container Registry Repository Writer") : "Container Registry Repository Reader"],
  ) : concat(["AcrPull"], var.destination ? ["AcrPush"] : [], var.destination && var.deletes ? ["AcrDelete"] : [])
}

resource "azurerm_role_assignment" "twinport" {
  for_each             = toset(local.roles)
  scope                = data.azurerm_container_registry.this.id
  role_definition_name = each.value
  principal_id         = local.principal
}

resource "azurerm_container_registry_webhook" "twinport" {
  count               = var.events == "webhook" ? 1 : 0
  name                = "twinport"
  registry_name       = var.registry_name
  resource_group_name = var.resource_group
  location            = data.azurerm_container_registry.this.location
  service_uri         = var.hook_url
  actions             = ["push", "delete"]
  custom_headers = {
    "Content-Type"  = "application/json"
    "Authorization" = "Bearer ${var.hook_secret}"
  }
}

resource "azurerm_eventgrid_event_subscription" "twinport" {
  count = var.events == "eventgrid" ? 1 : 0
  name  = "twinport"
  scope = data.azurerm_container_registry.this.id

  # The handshake carries no headers of ours, so the secret is in the address.
  webhook_endpoint {
    url = "${var.hook_url}?key=${urlencode(var.hook_secret)}"
  }

  event_delivery_schema = "CloudEventSchemaV1_0"
  included_event_types = [
    "Microsoft.ContainerRegistry.ImagePushed",
    "Microsoft.ContainerRegistry.ImageDeleted",
  ]

  retry_policy {
    max_delivery_attempts = 30
    event_time_to_live    = 1440
  }
}

output "client_id" {
  value       = one(azurerm_user_assigned_identity.twinport[*].client_id)
  description = "auth.azure.client, and the service account's annotation azure.workload.identity/client-id"
}
