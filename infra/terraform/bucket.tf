data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

resource "aws_kms_key" "lake" {
  description             = "Objects of the lake ${var.bucket}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      # The account's own IAM policies say who may use it: the roles below, by name.
      Sid       = "Account"
      Effect    = "Allow"
      Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })
}

resource "aws_s3_bucket" "lake" {
  #checkov:skip=CKV_AWS_144:what a second region would cost is the site's to weigh; days can be scored again
  #checkov:skip=CKV_AWS_18:access logs of a lake are a bill of their own: CloudTrail data events where they are wanted
  #checkov:skip=CKV2_AWS_62:nothing here waits for an object to come
  bucket = var.bucket
}

resource "aws_s3_bucket_versioning" "lake" {
  bucket = aws_s3_bucket.lake.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "lake" {
  bucket = aws_s3_bucket.lake.id
  rule {
    bucket_key_enabled = true # one request to KMS for many objects
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.lake.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "lake" {
  bucket                  = aws_s3_bucket.lake.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "lake" {
  bucket = aws_s3_bucket.lake.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# Scratch lies inside each watch's folder, where a rule by prefix cannot see it: the watches that
# run are named. Orphaned shards of dead attempts are removed by `vacuum`, which knows the tables.
resource "aws_s3_bucket_lifecycle_configuration" "lake" {
  bucket     = aws_s3_bucket.lake.id
  depends_on = [aws_s3_bucket_versioning.lake]

  rule {
    id     = "uploads-that-were-never-completed"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "replaced-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = var.orphan_days
    }
  }

  dynamic "rule" {
    for_each = setproduct(var.watches, ["_trainings", "_tunings", "_runs"])
    content {
      id     = "orphans-${rule.value[0]}${rule.value[1]}"
      status = "Enabled"
      filter {
        prefix = "${var.output_prefix}/${rule.value[0]}/${rule.value[1]}/"
      }
      expiration {
        days = var.orphan_days
      }
    }
  }
}

module "policies" {
  source         = "./policies"
  bucket         = var.bucket
  partition      = data.aws_partition.current.partition
  input_prefixes = var.input_prefixes
  output_prefix  = var.output_prefix
  export_prefix  = var.export_prefix
  key_arn        = aws_kms_key.lake.arn
}

resource "aws_s3_bucket_policy" "lake" {
  bucket     = aws_s3_bucket.lake.id
  policy     = module.policies.bucket
  depends_on = [aws_s3_bucket_public_access_block.lake]
}
