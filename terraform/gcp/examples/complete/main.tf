# Everything: a network of its own with Cloud NAT, five nodes in three zones, encrypted gossip and snapshots.

terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 8.0"
    }
  }
}

variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region."
  type        = string
  default     = "europe-west3"
}

variable "image" {
  description = "Container image of Kai in Artifact Registry, with its tag."
  type        = string
}

variable "repository" {
  description = "Name of the repository of Artifact Registry, in the same region."
  type        = string
}

variable "gossip_key_secret" {
  description = "Secret that holds KAI_GOSSIP_KEY: projects/P/secrets/S."
  type        = string
}

variable "backup_key_secret" {
  description = "Secret that holds KAI_BACKUP_KEY. Keep a copy elsewhere: without it snapshots are lost."
  type        = string
}

locals {
  cidr = "10.64.0.0/20"
}

resource "google_compute_network" "kai" {
  name                    = "kai"
  project                 = var.project
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "kai" {
  name                     = "kai"
  project                  = var.project
  region                   = var.region
  network                  = google_compute_network.kai.id
  ip_cidr_range            = local.cidr
  private_ip_google_access = true
}

resource "google_compute_router" "kai" {
  name    = "kai"
  project = var.project
  region  = var.region
  network = google_compute_network.kai.id
}

resource "google_compute_router_nat" "kai" {
  name                               = "kai"
  project                            = var.project
  region                             = var.region
  router                             = google_compute_router.kai.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}

module "kai" {
  source = "../.."

  name              = "kai"
  project           = var.project
  region            = var.region
  zones             = [for z in ["a", "b", "c"] : "${var.region}-${z}"]
  network           = google_compute_network.kai.id
  subnetwork        = google_compute_subnetwork.kai.self_link
  image             = var.image
  artifact_registry = { location = var.region, repository = var.repository }
  size              = 5
  machine_type      = "n2-standard-4"
  client_cidrs      = [local.cidr]
  admin_cidrs       = [local.cidr]
  data_disk         = { size = 200 }
  secrets           = { KAI_GOSSIP_KEY = var.gossip_key_secret, KAI_BACKUP_KEY = var.backup_key_secret }
  backup            = { interval = "30m", keep = 48 }
}

output "endpoint" {
  description = "For memcache clients."
  value       = module.kai.endpoint
}

output "backup_url" {
  description = "For kai backup."
  value       = module.kai.backup_url
}
