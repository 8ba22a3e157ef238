terraform {
  # 1.9: validations may name other variables.
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 8.0"
    }
  }
}

locals {
  # Discovery finds nodes by this label, in whichever group they are.
  cluster_label = "kai-cluster"

  ports = {
    clients = 11211
    peers   = 11212
    gossip  = 11213
    admin   = 11214
  }

  # One instance group on demand, and perhaps one of spot instances in a zone of its own.
  groups = merge(
    { main = { zones = var.zones, size = var.size, spot = false } },
    var.spot == null ? {} : { spot = { zones = var.spot.zones, size = var.spot.size, spot = true } },
  )

  founders = coalesce(var.founders, sum([for g in local.groups : g.size]))
  labels   = merge(var.labels, { (local.cluster_label) = var.name })
}
