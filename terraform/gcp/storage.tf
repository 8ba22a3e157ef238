# The bucket of snapshots, unless one is named.

locals {
  creates_bucket = var.backup.bucket == null
  bucket         = local.creates_bucket ? google_storage_bucket.snapshots[0].name : var.backup.bucket
  prefix         = "${var.name}/"
}

resource "google_storage_bucket" "snapshots" {
  count = local.creates_bucket ? 1 : 0

  name                        = "${var.project}-${var.name}-kai"
  project                     = var.project
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.deletion_protection
  labels                      = local.labels

  # Kai prunes by itself. What it, or whoever else, deletes can be had back for a week. Of current objects no rule may delete any: snapshots share them.
  versioning {
    enabled = true
  }
  soft_delete_policy {
    retention_duration_seconds = 0
  }
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      with_state                 = "ARCHIVED"
      days_since_noncurrent_time = 7
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }
}
