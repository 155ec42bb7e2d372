# Who may do what in the lake, as plain values: no provider, so that a test evaluates it offline.
# Which verb touches what is told by the modules named beside each statement.

variable "bucket" {
  description = "Name of the lake's bucket."
  type        = string
}

variable "partition" {
  description = "AWS partition, such as aws or aws-cn."
  type        = string
  default     = "aws"
}

variable "input_prefixes" {
  description = "Prefixes of the logs."
  type        = list(string)
}

variable "output_prefix" {
  description = "Prefix of all watches' outputs."
  type        = string
}

variable "export_prefix" {
  description = "Prefix of exported flags."
  type        = string
}

variable "key_arn" {
  description = "KMS key of the bucket."
  type        = string
}

locals {
  bucket = "arn:${var.partition}:s3:::${var.bucket}"
  # <output_prefix>/<watch>/<folder>/…: `*` also matches '/', so a watch's name may have one.
  watch  = "${local.bucket}/${var.output_prefix}/*"
  inputs = [for prefix in var.input_prefixes : "${local.bucket}/${prefix}/*"]

  list = {
    for role, prefixes in {
      trainer  = concat(var.input_prefixes, [var.output_prefix])
      scorer   = concat(var.input_prefixes, [var.output_prefix])
      reporter = [var.output_prefix, var.export_prefix]
      } : role => {
      Sid       = "List"
      Effect    = "Allow"
      Action    = ["s3:ListBucket"]
      Resource  = [local.bucket]
      Condition = { StringLike = { "s3:prefix" = [for prefix in prefixes : "${prefix}/*"] } }
    }
  }

  key = ["kms:Decrypt", "kms:GenerateDataKey"]
  # A document of the registry, a shard or a card is one PUT; Ray Train's checkpoints and large
  # shards of delta-rs go up in parts, and what fails half way is taken back.
  put    = ["s3:PutObject", "s3:AbortMultipartUpload"]
  delete = ["s3:DeleteObject"]

  statements = {
    trainer = [
      local.list.trainer,
      { Sid = "Read", Effect = "Allow", Action = ["s3:GetObject"], Resource = concat(local.inputs, [local.watch]) },
      # Bundles, thresholds, champions (cluster/lake/registry/registry.py); never changed, so never deleted.
      # The output is marked as the watch's by its first training (cluster/lake/output/owner.py).
      # Derived rows (cluster/lake/derived/derive.py) are made by whoever needs them first.
      { Sid = "Write", Effect = "Allow", Action = local.put, Resource = ["${local.watch}/registry/*", "${local.watch}/_derived/*", "${local.watch}/_watch.json"] },
      # Ray Train stores by Arrow's file system, which asks whether the bucket is there (as S3 sees
      # it, a list without a prefix: names, no contents) and marks each folder on the way by an
      # empty object that ends in '/', which no program of ours reads.
      { Sid = "BucketExists", Effect = "Allow", Action = ["s3:ListBucket"], Resource = [local.bucket], Condition = { Null = { "s3:prefix" = "true" } } },
      { Sid = "Folders", Effect = "Allow", Action = ["s3:PutObject"], Resource = ["${local.bucket}/${var.output_prefix}/", "${local.watch}/"] },
      # Checkpoints (jobs/training/run.py) and trials (jobs/tune.py) go when they are done with.
      { Sid = "Scratch", Effect = "Allow", Action = concat(local.put, local.delete), Resource = ["${local.watch}/_trainings/*", "${local.watch}/_tunings/*"] },
      { Sid = "Key", Effect = "Allow", Action = local.key, Resource = [var.key_arn] },
    ]
    scorer = [
      local.list.scorer,
      { Sid = "Read", Effect = "Allow", Action = ["s3:GetObject"], Resource = concat(local.inputs, [local.watch]) },
      # Journal, tables, cards (jobs/score.py, jobs/report/run_card.py). No registry: what reads the night's
      # logs, which others write, cannot change the detector that judges them.
      {
        Sid    = "Write"
        Effect = "Allow"
        Action = local.put
        Resource = [
          for folder in ["flags", "scores", "quarantine", "reports", "_runs", "_derived"] :
          "${local.watch}/${folder}/*"
        ]
      },
      # The probe of conditional PUT is taken away again; delta-rs tidies expired entries of its log.
      { Sid = "Probe", Effect = "Allow", Action = concat(local.put, local.delete), Resource = ["${local.watch}/_probe-*"] },
      { Sid = "LogCleanup", Effect = "Allow", Action = local.delete, Resource = ["${local.watch}/_delta_log/*"] },
      { Sid = "Key", Effect = "Allow", Action = local.key, Resource = [var.key_arn] },
    ]
    reporter = [
      local.list.reporter,
      # Committed flags and cards; neither logs nor detectors.
      { Sid = "Read", Effect = "Allow", Action = ["s3:GetObject"], Resource = ["${local.watch}/_watch.json", "${local.watch}/flags/*", "${local.watch}/reports/*", "${local.bucket}/${var.export_prefix}/*"] },
      { Sid = "Export", Effect = "Allow", Action = concat(local.put, local.delete), Resource = ["${local.bucket}/${var.export_prefix}/*"] },
      { Sid = "Key", Effect = "Allow", Action = local.key, Resource = [var.key_arn] },
    ]
  }

  bucket_statements = [
    {
      Sid       = "OnlyTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["s3:*"]
      Resource  = [local.bucket, "${local.bucket}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    },
    # An entry of a commit log and a champion are created once: who would replace one, whatever the
    # role and the program, is refused by S3 itself. `_last_checkpoint` and checkpoints in Parquet
    # are not entries, and are replaced. A journal has records of both kinds: the program keeps them. Parts of an upload carry no
    # condition; its completion does (ObjectCreationOperation).
    {
      Sid       = "CreateOnce"
      Effect    = "Deny"
      Principal = "*"
      Action    = ["s3:PutObject"]
      Resource  = ["${local.bucket}/*/_delta_log/*.json", "${local.bucket}/*/registry/champions/*"]
      Condition = {
        Null = { "s3:if-none-match" = "true" }
        Bool = { "s3:ObjectCreationOperation" = "true" }
      }
    },
  ]
}

output "roles" {
  description = "IAM policy by role, in JSON."
  value       = { for role, all in local.statements : role => jsonencode({ Version = "2012-10-17", Statement = all }) }
}

output "bucket" {
  description = "Policy of the bucket, in JSON."
  value       = jsonencode({ Version = "2012-10-17", Statement = local.bucket_statements })
}
