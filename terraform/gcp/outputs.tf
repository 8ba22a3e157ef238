output "endpoint" {
  description = "Where memcache clients connect: host:port."
  value       = "${google_compute_forwarding_rule.clients.ip_address}:${local.ports.clients}"
}

output "instance_groups" {
  description = "Managed instance groups, by kind."
  value       = { for k, g in google_compute_region_instance_group_manager.node : k => g.name }
}

output "service_account" {
  description = "Whom the instances are."
  value       = google_service_account.node.email
}

output "backup_url" {
  description = "KAI_BACKUP_URL, for kai backup from anywhere."
  value       = local.environment["main"].KAI_BACKUP_URL
}
