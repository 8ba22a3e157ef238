# The bucket of snapshots, unless one is named.

locals {
  creates_bucket = var.backup.bucket == null
  bucket         = local.creates_bucket ? aws_s3_bucket.snapshots[0].bucket : var.backup.bucket
  bucket_arn     = local.creates_bucket ? aws_s3_bucket.snapshots[0].arn : "arn:${local.partition}:s3:::${var.backup.bucket}"
  bucket_key_arn = local.creates_bucket ? aws_kms_key.snapshots[0].arn : var.backup.kms_key_arn
  has_bucket_key = local.creates_bucket || var.backup.kms_key_arn != null
  prefix         = "${var.name}/"
}

resource "aws_kms_key" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  description             = "Snapshots of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags
}

resource "aws_kms_alias" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  name          = "alias/${var.name}-kai-snapshots"
  target_key_id = aws_kms_key.snapshots[0].key_id
}

resource "aws_s3_bucket" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  bucket_prefix = "${var.name}-kai-"
  force_destroy = !var.deletion_protection
  tags          = var.tags
}

resource "aws_s3_bucket_server_side_encryption_configuration" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  bucket = aws_s3_bucket.snapshots[0].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.snapshots[0].arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  bucket                  = aws_s3_bucket.snapshots[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  bucket = aws_s3_bucket.snapshots[0].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# Kai prunes by itself. What it, or whoever else, deletes can be had back for a week.
resource "aws_s3_bucket_versioning" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  bucket = aws_s3_bucket.snapshots[0].id
  versioning_configuration {
    status = "Enabled"
  }
}

# Of current objects no rule may delete any: snapshots share them.
resource "aws_s3_bucket_lifecycle_configuration" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  bucket = aws_s3_bucket.snapshots[0].id
  rule {
    id     = "leftovers"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = 7
    }
    expiration {
      expired_object_delete_marker = true
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 2
    }
  }

  depends_on = [aws_s3_bucket_versioning.snapshots]
}

resource "aws_s3_bucket_policy" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  bucket = aws_s3_bucket.snapshots[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyTLS"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [local.bucket_arn, "${local.bucket_arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.snapshots]
}
