output "endpoint" {
  description = "Where memcache clients connect: host:port."
  value       = "${var.dns == null ? aws_lb.kai.dns_name : aws_route53_record.kai[0].fqdn}:${local.ports.clients}"
}

output "tls" {
  description = "Whether clients must speak TLS."
  value       = var.tls_certificate_arn != null
}

output "load_balancer" {
  description = "The load balancer: its name in DNS, the zone of that, its ARN."
  value       = { dns_name = aws_lb.kai.dns_name, zone_id = aws_lb.kai.zone_id, arn = aws_lb.kai.arn }
}

output "node_security_group_id" {
  description = "Security group of the nodes."
  value       = aws_security_group.node.id
}

output "autoscaling_groups" {
  description = "Names of the autoscaling groups, by kind."
  value       = { for k, g in aws_autoscaling_group.node : k => g.name }
}

output "role_name" {
  description = "Role of the instances."
  value       = aws_iam_role.node.name
}

output "backup_url" {
  description = "KAI_BACKUP_URL, for kai backup from anywhere."
  value       = local.environment["main"].KAI_BACKUP_URL
}

output "log_group" {
  description = "Where logs go in CloudWatch."
  value       = aws_cloudwatch_log_group.kai.name
}
