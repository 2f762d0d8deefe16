# What Twinport needs of Amazon ECR in one account and region: an identity with
# the rights of its part, and events by an SQS queue or an API destination.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "destination" {
  type        = bool
  default     = false
  description = "Images are copied to this registry, so the identity may push too."
}

variable "repositories" {
  type        = list(string)
  default     = ["*"]
  description = "Names of the repositories, with * for any text, as in team/*."
}

variable "create" {
  type        = bool
  default     = false
  description = "Twinport makes missing repositories (create: {missing: true})."
}

variable "deletes" {
  type        = bool
  default     = false
  description = "A route carries deletions over to this destination (deletes: {mirror: …})."
}

variable "events" {
  type        = string
  default     = "none"
  description = "sqs, webhook or none: how pushes are told. A destination alone needs none."
  validation {
    condition     = contains(["sqs", "webhook", "none"], var.events)
    error_message = "events is sqs, webhook or none."
  }
}

variable "hook_url" {
  type        = string
  default     = "https://twinport.example.com/hooks/NAME"
  description = "With webhook: https://YOUR-TWINPORT/hooks/NAME, of a certificate that AWS trusts."
}

variable "hook_secret" {
  type        = string
  default     = ""
  sensitive   = true
  description = "With webhook: the registry's webhook.secret."
}

variable "oidc_provider" {
  type        = string
  default     = ""
  description = "With IRSA: the cluster's OIDC provider without https://, as in oidc.eks.eu-west-1.amazonaws.com/id/ABC. Empty: no role is made; attach the policy to yours."
}

variable "service_account" {
  type        = string
  default     = "twinport:twinport"
  description = "With IRSA: NAMESPACE:NAME of Twinport's service account."
}

variable "trusted_roles" {
  type        = list(string)
  default     = []
  description = "ARNs of identities of other accounts that take the role (auth.assumeRole)."
}

variable "external_id" {
  type        = string
  default     = ""
  description = "With trusted_roles: what auth.assumeRole.externalId says."
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account      = data.aws_caller_identity.this.account_id
  partition    = data.aws_partition.this.partition
  region       = data.aws_region.this.name
  repositories = [for r in var.repositories : "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${r}"]
  make_role    = var.oidc_provider != "" || length(var.trusted_roles) > 0
}

# --- the identity -----------------------------------------------------------

data "aws_iam_policy_document" "twinport" {
  statement {
    sid       = "LogIn"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
  statement {
    sid       = "ListRepositories"
    actions   = ["ecr:DescribeRepositories"]
    resources = ["arn:${local.partition}:ecr:${local.region}:${local.account}:repository/*"]
  }
  statement { # a destination is read back, too
    sid = "Pull"
    actions = [
      "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability",
      "ecr:DescribeImages", "ecr:ListImages", "ecr:ListImageReferrers",
    ]
    resources = local.repositories
  }
  dynamic "statement" {
    for_each = var.destination ? [1] : []
    content {
      sid       = "Push"
      actions   = ["ecr:InitiateLayerUpload", "ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage"]
      resources = local.repositories
    }
  }
  dynamic "statement" {
    for_each = var.destination && var.create ? [1] : []
    content {
      sid       = "Create"
      actions   = ["ecr:CreateRepository", "ecr:PutLifecyclePolicy", "ecr:SetRepositoryPolicy", "ecr:TagResource"]
      resources = local.repositories
    }
  }
  dynamic "statement" {
    for_each = var.destination && var.deletes ? [1] : []
    content {
      sid       = "Delete"
      actions   = ["ecr:BatchDeleteImage"]
      resources = local.repositories
    }
  }
  dynamic "statement" {
    for_each = var.events == "sqs" ? [1] : []
    content {
      sid       = "Fetch"
      actions   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
      resources = [aws_sqs_queue.events[0].arn]
    }
  }
}

resource "aws_iam_policy" "twinport" {
  name_prefix = "twinport-"
  policy      = data.aws_iam_policy_document.twinport.json
}

data "aws_iam_policy_document" "trust" {
  count = local.make_role ? 1 : 0

  dynamic "statement" {
    for_each = var.oidc_provider != "" ? [1] : []
    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]
      principals {
        type        = "Federated"
        identifiers = ["arn:${local.partition}:iam::${local.account}:oidc-provider/${var.oidc_provider}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${var.oidc_provider}:sub"
        values   = ["system:serviceaccount:${var.service_account}"]
      }
      condition {
        test     = "StringEquals"
        variable = "${var.oidc_provider}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }
  dynamic "statement" {
    for_each = length(var.trusted_roles) > 0 ? [1] : []
    content {
      actions = ["sts:AssumeRole"]
      principals {
        type        = "AWS"
        identifiers = var.trusted_roles
      }
      dynamic "condition" {
        for_each = var.external_id != "" ? [1] : []
        content {
          test     = "StringEquals"
          variable = "sts:ExternalId"
          values   = [var.external_id]
        }
      }
    }
  }
}

resource "aws_iam_role" "twinport" {
  count              = local.make_role ? 1 : 0
  name_prefix        = "twinport-"
  assume_role_policy = data.aws_iam_policy_document.trust[0].json
}

resource "aws_iam_role_policy_attachment" "twinport" {
  count      = local.make_role ? 1 : 0
  role       = aws_iam_role.twinport[0].name
  policy_arn = aws_iam_policy.twinport.arn
}

# --- the events -------------------------------------------------------------

resource "aws_cloudwatch_event_rule" "pushes" {
  count       = var.events == "none" ? 0 : 1
  name_prefix = "twinport-"
  description = "Pushes and deletes of ECR, for Twinport."
  event_pattern = jsonencode({
    source        = ["aws.ecr"]
    "detail-type" = ["ECR Image Action", "ECR Referrer Action"]
    detail        = { result = ["SUCCESS"], "action-type" = ["PUSH", "DELETE"] }
  })
}

resource "aws_sqs_queue" "dead" {
  count                     = var.events == "none" ? 0 : 1
  name_prefix               = "twinport-dead-"
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue" "events" {
  count                      = var.events == "sqs" ? 1 : 0
  name_prefix                = "twinport-"
  message_retention_seconds  = 1209600
  visibility_timeout_seconds = 60
  receive_wait_time_seconds  = 20
  sqs_managed_sse_enabled    = true
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead[0].arn
    maxReceiveCount     = 5
  })
}

data "aws_iam_policy_document" "send" {
  count = var.events == "none" ? 0 : 1
  statement {
    actions   = ["sqs:SendMessage"]
    resources = concat(aws_sqs_queue.events[*].arn, aws_sqs_queue.dead[*].arn)
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.pushes[0].arn]
    }
  }
}

resource "aws_sqs_queue_policy" "events" {
  count     = var.events == "sqs" ? 1 : 0
  queue_url = aws_sqs_queue.events[0].url
  policy    = data.aws_iam_policy_document.send[0].json
}

resource "aws_sqs_queue_policy" "dead" {
  count     = var.events == "none" ? 0 : 1
  queue_url = aws_sqs_queue.dead[0].url
  policy    = data.aws_iam_policy_document.send[0].json
}

resource "aws_cloudwatch_event_target" "queue" {
  count = var.events == "sqs" ? 1 : 0
  rule  = aws_cloudwatch_event_rule.pushes[0].name
  arn   = aws_sqs_queue.events[0].arn
}

resource "aws_cloudwatch_event_connection" "hook" {
  count              = var.events == "webhook" ? 1 : 0
  name               = "twinport"
  authorization_type = "BASIC"
  auth_parameters {
    basic {
      username = "eventbridge"
      password = var.hook_secret
    }
  }
}

resource "aws_cloudwatch_event_api_destination" "hook" {
  count                            = var.events == "webhook" ? 1 : 0
  name                             = "twinport"
  invocation_endpoint              = var.hook_url
  http_method                      = "POST"
  invocation_rate_limit_per_second = 300
  connection_arn                   = aws_cloudwatch_event_connection.hook[0].arn
}

resource "aws_iam_role" "invoke" {
  count       = var.events == "webhook" ? 1 : 0
  name_prefix = "twinport-events-"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "events.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy" "invoke" {
  count = var.events == "webhook" ? 1 : 0
  role  = aws_iam_role.invoke[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "events:InvokeApiDestination"
      Resource = aws_cloudwatch_event_api_destination.hook[0].arn
    }]
  })
}

resource "aws_cloudwatch_event_target" "hook" {
  count    = var.events == "webhook" ? 1 : 0
  rule     = aws_cloudwatch_event_rule.pushes[0].name
  arn      = aws_cloudwatch_event_api_destination.hook[0].arn
  role_arn = aws_iam_role.invoke[0].arn
  dead_letter_config {
    arn = aws_sqs_queue.dead[0].arn
  }
  retry_policy {
    maximum_event_age_in_seconds = 86400
    maximum_retry_attempts       = 185
  }
}

output "policy_arn" {
  description = "What the identity needs; attach it where no role was made."
  value       = aws_iam_policy.twinport.arn
}

output "role_arn" {
  description = "The role: the service account's annotation eks.amazonaws.com/role-arn, or auth.assumeRole.arn."
  value       = one(aws_iam_role.twinport[*].arn)
}

output "queue_url" {
  description = "events: {sqs: …}"
  value       = one(aws_sqs_queue.events[*].url)
}
