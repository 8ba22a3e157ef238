# One address for clients. Any node serves any key, so connections may go to whichever is ready.

resource "aws_lb" "kai" {
  name                             = "${var.name}-kai"
  internal                         = true
  load_balancer_type               = "network"
  subnets                          = concat(var.subnet_ids, try(var.spot.subnet_ids, []))
  security_groups                  = [aws_security_group.lb.id]
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.deletion_protection
  tags                             = var.tags
}

resource "aws_lb_target_group" "kai" {
  name        = "${var.name}-kai"
  vpc_id      = var.vpc_id
  target_type = "instance"
  protocol    = "TCP"
  port        = local.ports.clients
  tags        = var.tags

  # A client that is a node's own neighbour would otherwise meet its own address.
  preserve_client_ip = false

  health_check {
    protocol            = "HTTP"
    port                = tostring(local.ports.admin)
    path                = "/readyz"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  # A node that hands over goes on serving the connections it has until it stops. It must not be the load balancer that cuts them.
  target_health_state {
    enable_unhealthy_connection_termination = false
    unhealthy_draining_interval             = min(var.drain_timeout, 3600)
  }
  deregistration_delay   = min(var.drain_timeout, 3600)
  connection_termination = true
}

resource "aws_lb_listener" "clients" {
  load_balancer_arn = aws_lb.kai.arn
  port              = local.ports.clients
  protocol          = var.tls_certificate_arn == null ? "TCP" : "TLS"
  certificate_arn   = var.tls_certificate_arn
  ssl_policy        = var.tls_certificate_arn == null ? null : "ELBSecurityPolicy-TLS13-1-2-2021-06"
  tags              = var.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.kai.arn
  }
}

resource "aws_route53_record" "kai" {
  count = var.dns == null ? 0 : 1

  zone_id = var.dns.zone_id
  name    = var.dns.name
  type    = "A"

  alias {
    name                   = aws_lb.kai.dns_name
    zone_id                = aws_lb.kai.zone_id
    evaluate_target_health = false
  }
}
