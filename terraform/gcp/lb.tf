# One address for clients. Any node serves any key, so connections may go to whichever is ready.

resource "google_compute_region_health_check" "ready" {
  name                = "${var.name}-kai-ready"
  project             = var.project
  region              = var.region
  check_interval_sec  = 5
  timeout_sec         = 3
  healthy_threshold   = 2
  unhealthy_threshold = 2

  http_health_check {
    port         = local.ports.admin
    request_path = "/readyz"
  }
}

resource "google_compute_region_backend_service" "kai" {
  name                            = "${var.name}-kai"
  project                         = var.project
  region                          = var.region
  load_balancing_scheme           = "INTERNAL"
  protocol                        = "TCP"
  health_checks                   = [google_compute_region_health_check.ready.id]
  connection_draining_timeout_sec = 90

  dynamic "backend" {
    for_each = google_compute_region_instance_group_manager.node
    content {
      group          = backend.value.instance_group
      balancing_mode = "CONNECTION"
    }
  }
}

resource "google_compute_forwarding_rule" "clients" {
  name                  = "${var.name}-kai"
  project               = var.project
  region                = var.region
  load_balancing_scheme = "INTERNAL"
  ip_protocol           = "TCP"
  ports                 = [tostring(local.ports.clients)]
  network               = var.network
  subnetwork            = var.subnetwork
  backend_service       = google_compute_region_backend_service.kai.id
  allow_global_access   = var.global_access
  labels                = local.labels
}
