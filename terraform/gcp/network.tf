# Clients and health checks reach nodes; nodes reach each other; operators reach the admin port. A passthrough load balancer keeps clients' addresses.

locals {
  tag = "${var.name}-kai"
}

resource "google_compute_firewall" "clients" {
  name          = "${var.name}-kai-clients"
  description   = "memcache clients"
  project       = var.project
  network       = var.network
  source_ranges = var.client_cidrs
  target_tags   = [local.tag]

  allow {
    protocol = "tcp"
    ports    = [tostring(local.ports.clients)]
  }
}

resource "google_compute_firewall" "health" {
  name          = "${var.name}-kai-health"
  description   = "health checks of Google's load balancers"
  project       = var.project
  network       = var.network
  source_ranges = ["35.191.0.0/16", "130.211.0.0/22"]
  target_tags   = [local.tag]

  allow {
    protocol = "tcp"
    ports    = [tostring(local.ports.admin)]
  }
}

resource "google_compute_firewall" "nodes" {
  name        = "${var.name}-kai-nodes"
  description = "nodes to each other"
  project     = var.project
  network     = var.network
  source_tags = [local.tag]
  target_tags = [local.tag]

  allow {
    protocol = "tcp"
    ports    = [tostring(local.ports.peers), tostring(local.ports.gossip), tostring(local.ports.admin)]
  }
  allow {
    protocol = "udp"
    ports    = [tostring(local.ports.gossip)]
  }
}

resource "google_compute_firewall" "admin" {
  count = length(var.admin_cidrs) > 0 ? 1 : 0

  name          = "${var.name}-kai-admin"
  description   = "operators and Prometheus"
  project       = var.project
  network       = var.network
  source_ranges = var.admin_cidrs
  target_tags   = [local.tag]

  allow {
    protocol = "tcp"
    ports    = [tostring(local.ports.admin)]
  }
}
