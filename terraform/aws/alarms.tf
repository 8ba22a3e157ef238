# What the cloud sees. What only Kai sees, such as the age of the newest snapshot, Prometheus tells.

locals {
  load_balancer = { LoadBalancer = aws_lb.kai.arn_suffix, TargetGroup = aws_lb_target_group.kai.arn_suffix }
}

resource "aws_cloudwatch_metric_alarm" "unready" {
  alarm_name          = "${var.name}-kai-unready"
  alarm_description   = "A node of ${var.name} is not ready for 15 minutes: GET /readyz on its admin port says why."
  namespace           = "AWS/NetworkELB"
  metric_name         = "UnHealthyHostCount"
  dimensions          = local.load_balancer
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 15
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "few" {
  alarm_name          = "${var.name}-kai-few"
  alarm_description   = "Fewer nodes of ${var.name} are ready than a record has replicas (${local.replicas}): one more loss may stop partitions."
  namespace           = "AWS/NetworkELB"
  metric_name         = "HealthyHostCount"
  dimensions          = local.load_balancer
  statistic           = "Minimum"
  period              = 60
  evaluation_periods  = 3
  comparison_operator = "LessThanThreshold"
  threshold           = local.replicas
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "cpu" {
  for_each = local.groups

  alarm_name          = "${local.group_names[each.key]}-cpu"
  alarm_description   = "Nodes of ${local.group_names[each.key]} are busy: add some."
  namespace           = "AWS/EC2"
  metric_name         = "CPUUtilization"
  dimensions          = { AutoScalingGroupName = aws_autoscaling_group.node[each.key].name }
  statistic           = "Average"
  period              = 300
  evaluation_periods  = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 85
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags
}
