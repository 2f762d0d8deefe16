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
  description = "Object ID of the identity Twinport runs as (managed identity, workload identity or service principal)."
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

locals {
  roles = var.abac ? concat(
    ["Container Registry Repository Catalog Lister"],
    [var.destination ? "Container Registry Repository Writer" : "Container Registry Repository Reader"],
  ) : concat(["AcrPull"], var.destination ? ["AcrPush"] : [])
}

resource "azurerm_role_assignment" "twinport" {
  for_each             = toset(local.roles)
  scope                = data.azurerm_container_registry.this.id
  role_definition_name = each.value
  principal_id         = var.principal_id
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
