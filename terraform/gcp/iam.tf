# What a node may do, and nothing else.

resource "google_service_account" "node" {
  account_id   = "${var.name}-kai-node"
  display_name = "Nodes of ${var.name}"
  project      = var.project
}

resource "google_project_iam_custom_role" "peers" {
  role_id     = replace("${var.name}_kai_peers", "-", "_")
  title       = "Kai ${var.name}: find peers"
  description = "Lists instances, to find those with the label of the cluster"
  project     = var.project
  permissions = ["compute.instances.list"]
}

resource "google_project_iam_member" "peers" {
  project = var.project
  role    = google_project_iam_custom_role.peers.id
  member  = google_service_account.node.member
}

resource "google_project_iam_member" "logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.node.member
}

# Objects are read, listed, written and, by pruning, deleted; the bucket itself is not touched.
resource "google_storage_bucket_iam_member" "snapshots" {
  bucket = local.bucket
  role   = "roles/storage.objectUser"
  member = google_service_account.node.member
}

resource "google_secret_manager_secret_iam_member" "secrets" {
  for_each = var.secrets

  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.node.member
}

resource "google_artifact_registry_repository_iam_member" "image" {
  count = var.artifact_registry == null ? 0 : 1

  project    = var.project
  location   = var.artifact_registry.location
  repository = var.artifact_registry.repository
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.node.member
}
