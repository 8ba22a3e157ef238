# The instances.

locals {
  # Compute Engine leaves an instance that it deletes 90 s, and one that it preempts 30 s. There are no lifecycle hooks: drain first, see README.
  drain_seconds = { for g, v in local.groups : g => v.spot ? 20 : 75 }

  environment = { for g in keys(local.groups) : g => merge(
    {
      GOOGLE_CLOUD_PROJECT = var.project
      KAI_BACKUP_INTERVAL  = var.backup.interval
      KAI_BACKUP_KEEP      = tostring(var.backup.keep)
      KAI_BACKUP_URL       = "gs://${local.bucket}?prefix=${local.prefix}"
      KAI_BOOTSTRAP_EXPECT = tostring(local.founders)
      KAI_CLUSTER          = var.name
      KAI_DISCOVERY        = "gce:label=${local.cluster_label}=${var.name}"
      KAI_DRAIN_TIMEOUT    = "${local.drain_seconds[g]}s"
      KAI_QUORUM           = var.quorum
    },
    var.settings,
  ) }
}

resource "google_compute_region_instance_template" "node" {
  for_each = local.groups

  name_prefix  = "${var.name}-kai-${each.key}-"
  description  = "Nodes of ${var.name}, ${each.key}"
  project      = var.project
  region       = var.region
  machine_type = var.machine_type
  tags         = [local.tag]
  labels       = local.labels

  disk {
    boot         = true
    auto_delete  = true
    source_image = "projects/cos-cloud/global/images/family/cos-stable"
    disk_type    = "pd-balanced"
    disk_size_gb = 16
    dynamic "disk_encryption_key" {
      for_each = var.kms_key[*]
      content {
        kms_key_self_link = disk_encryption_key.value
      }
    }
  }

  disk {
    auto_delete  = true
    device_name  = "data"
    disk_type    = var.data_disk.type
    disk_size_gb = var.data_disk.size
    dynamic "disk_encryption_key" {
      for_each = var.kms_key[*]
      content {
        kms_key_self_link = disk_encryption_key.value
      }
    }
  }

  # No access_config: no public address.
  network_interface {
    network    = var.network
    subnetwork = var.subnetwork
  }

  service_account {
    email  = google_service_account.node.email
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  scheduling {
    provisioning_model          = each.value.spot ? "SPOT" : "STANDARD"
    preemptible                 = each.value.spot
    automatic_restart           = !each.value.spot
    on_host_maintenance         = each.value.spot ? "TERMINATE" : "MIGRATE"
    instance_termination_action = each.value.spot ? "DELETE" : null
  }

  metadata = {
    google-logging-enabled = "false" # the container writes its own log
    enable-oslogin         = "TRUE"
    user-data = templatefile("${path.module}/cloud-init.yaml.tftpl", {
      image        = var.image
      registry     = var.artifact_registry == null ? "" : split("/", var.image)[0]
      environment  = local.environment[each.key]
      secrets      = var.secrets
      stop_seconds = local.drain_seconds[each.key] + 5
    })
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_region_instance_group_manager" "node" {
  for_each = local.groups

  name                             = "${var.name}-kai-${each.key}"
  project                          = var.project
  region                           = var.region
  base_instance_name               = "${var.name}-kai-${each.key}"
  distribution_policy_zones        = each.value.zones
  distribution_policy_target_shape = "EVEN"
  target_size                      = each.value.size
  wait_for_instances               = false

  version {
    instance_template = google_compute_region_instance_template.node[each.key].id
  }

  # A new template is taken by instances that are replaced one by one, each once the one before serves: see README. The group itself cannot
  # wait for that, and would replace one in each zone at once. For the same reason nothing heals by itself what is only not ready.
  update_policy {
    type                           = "OPPORTUNISTIC"
    minimal_action                 = "REPLACE"
    most_disruptive_allowed_action = "REPLACE"
    instance_redistribution_type   = "NONE"
    max_surge_fixed                = length(each.value.zones)
    max_unavailable_fixed          = 0
  }

  named_port {
    name = "memcache"
    port = local.ports.clients
  }

  depends_on = [
    google_compute_firewall.nodes,
    google_project_iam_member.peers,
    google_storage_bucket_iam_member.snapshots,
  ]
}
