# The load balancer takes clients; nodes take the load balancer, each other, and operators.

resource "aws_security_group" "lb" {
  name_prefix = "${var.name}-kai-lb-"
  description = "Clients of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-kai-lb" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_security_group" "node" {
  name_prefix = "${var.name}-kai-node-"
  description = "Nodes of ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-kai-node" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each = merge(
    { for c in var.client_cidrs : c => { cidr = c, group = null } },
    { for g in var.client_security_group_ids : g => { cidr = null, group = g } },
  )

  security_group_id            = aws_security_group.lb.id
  description                  = "memcache clients"
  ip_protocol                  = "tcp"
  from_port                    = local.ports.clients
  to_port                      = local.ports.clients
  cidr_ipv4                    = each.value.cidr
  referenced_security_group_id = each.value.group
}

# Requests, and health checks on the admin port.
resource "aws_vpc_security_group_egress_rule" "lb" {
  for_each = { for name in ["clients", "admin"] : name => local.ports[name] }

  security_group_id            = aws_security_group.lb.id
  description                  = "${each.key} of nodes"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  referenced_security_group_id = aws_security_group.node.id
}

resource "aws_vpc_security_group_ingress_rule" "lb" {
  for_each = { for name in ["clients", "admin"] : name => local.ports[name] }

  security_group_id            = aws_security_group.node.id
  description                  = "${each.key}, from the load balancer"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  referenced_security_group_id = aws_security_group.lb.id
}

locals {
  between_nodes = {
    peers      = { protocol = "tcp", port = local.ports.peers }
    gossip_tcp = { protocol = "tcp", port = local.ports.gossip }
    gossip_udp = { protocol = "udp", port = local.ports.gossip }
    admin      = { protocol = "tcp", port = local.ports.admin }
  }
}

resource "aws_vpc_security_group_ingress_rule" "node" {
  for_each = local.between_nodes

  security_group_id            = aws_security_group.node.id
  description                  = "${each.key}, between nodes"
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.port
  to_port                      = each.value.port
  referenced_security_group_id = aws_security_group.node.id
}

resource "aws_vpc_security_group_egress_rule" "node" {
  for_each = local.between_nodes

  security_group_id            = aws_security_group.node.id
  description                  = "${each.key}, between nodes"
  ip_protocol                  = each.value.protocol
  from_port                    = each.value.port
  to_port                      = each.value.port
  referenced_security_group_id = aws_security_group.node.id
}

# EC2, autoscaling, S3, secrets, logs, the registry. Time and names come from the VPC itself, which security groups do not filter.
resource "aws_vpc_security_group_egress_rule" "apis" {
  security_group_id = aws_security_group.node.id
  description       = "AWS APIs and the image's registry"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_ingress_rule" "admin" {
  for_each = toset(var.admin_cidrs)

  security_group_id = aws_security_group.node.id
  description       = "operators and Prometheus"
  ip_protocol       = "tcp"
  from_port         = local.ports.admin
  to_port           = local.ports.admin
  cidr_ipv4         = each.value
}

resource "aws_vpc_endpoint" "s3" {
  count = length(var.s3_endpoint_route_table_ids) > 0 ? 1 : 0

  vpc_id            = var.vpc_id
  service_name      = "com.amazonaws.${local.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = var.s3_endpoint_route_table_ids
  tags              = merge(var.tags, { Name = "${var.name}-kai-s3" })
}
