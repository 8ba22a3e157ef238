# Four nodes on demand in two zones, two on spot in the third: one of each record's three replicas is on spot, and a quorum never is.

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

variable "image" {
  description = "Container image of Kai, with its tag."
  type        = string
}

variable "subnetwork" {
  description = "Self link of the subnetwork."
  type        = string
}

module "kai" {
  source = "../.."

  name         = "kai"
  project      = var.project
  region       = "europe-west3"
  zones        = ["europe-west3-a", "europe-west3-b"]
  size         = 4
  spot         = { zones = ["europe-west3-c"], size = 2 }
  network      = "default"
  subnetwork   = var.subnetwork
  image        = var.image
  client_cidrs = ["10.0.0.0/8"]
}

output "endpoint" {
  description = "For memcache clients."
  value       = module.kai.endpoint
}
