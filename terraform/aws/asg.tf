# The instances.

locals {
  # Names, not references: the role's policy names the groups, and the groups wait for the role.
  group_names = { for g in keys(local.groups) : g => "${var.name}-kai-${g}" }

  # A spot instance has two minutes from the notice to the end.
  drain_seconds = { for g, v in local.groups : g => v.spot ? min(var.drain_timeout, 100) : var.drain_timeout }

  environment = { for g in keys(local.groups) : g => merge(
    {
      AWS_REGION           = local.region
      KAI_BACKUP_INTERVAL  = var.backup.interval
      KAI_BACKUP_KEEP      = tostring(var.backup.keep)
      KAI_BACKUP_URL       = "s3://${local.bucket}?region=${local.region}&prefix=${local.prefix}"
      KAI_BOOTSTRAP_EXPECT = tostring(local.founders)
      KAI_CLUSTER          = var.name
      KAI_DISCOVERY        = "aws:tag=${local.cluster_tag}=${var.name}"
      KAI_DRAIN_TIMEOUT    = "${local.drain_seconds[g]}s"
      KAI_QUORUM           = var.quorum
    },
    var.settings,
  ) }
}

resource "aws_cloudwatch_log_group" "kai" {
  name              = "/kai/${var.name}"
  retention_in_days = var.log_retention_days
  tags              = var.tags
}

resource "aws_launch_template" "node" {
  for_each = local.groups

  name_prefix            = "${local.group_names[each.key]}-"
  description            = "Nodes of ${var.name}, ${each.key}"
  image_id               = coalesce(var.ami_id, "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-${var.architecture}")
  update_default_version = true
  ebs_optimized          = true
  tags                   = var.tags

  iam_instance_profile {
    arn = aws_iam_instance_profile.node.arn
  }

  # IMDSv2 only. The container uses the host's network, so that one hop suffices.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  network_interfaces {
    device_index                = 0
    associate_public_ip_address = false
    delete_on_termination       = true
    security_groups             = [aws_security_group.node.id]
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = 16
      encrypted             = true
      kms_key_id            = var.ebs_kms_key_arn
      delete_on_termination = true
    }
  }

  dynamic "block_device_mappings" {
    for_each = var.data_volume[*]
    content {
      device_name = "/dev/sdf"
      ebs {
        volume_type           = "gp3"
        volume_size           = block_device_mappings.value.size
        iops                  = block_device_mappings.value.iops
        throughput            = block_device_mappings.value.throughput
        encrypted             = true
        kms_key_id            = var.ebs_kms_key_arn
        delete_on_termination = true
      }
    }
  }

  monitoring {
    enabled = true
  }

  user_data = base64encode(templatefile("${path.module}/user-data.sh.tftpl", {
    image        = var.image
    registry     = var.ecr_repository_arn == null ? "" : split("/", var.image)[0]
    environment  = local.environment[each.key]
    secrets      = var.secrets
    data_device  = var.data_volume == null ? "" : "/dev/sdf"
    log_group    = aws_cloudwatch_log_group.kai.name
    region       = local.region
    group        = local.group_names[each.key]
    stop_seconds = local.drain_seconds[each.key] + 30
    join_seconds = var.join_timeout
  }))

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]
    content {
      resource_type = tag_specifications.value
      tags          = merge(var.tags, { Name = local.group_names[each.key] })
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_autoscaling_group" "node" {
  for_each = local.groups

  name                = local.group_names[each.key]
  vpc_zone_identifier = each.value.subnet_ids
  min_size            = each.value.size.min
  max_size            = each.value.size.max
  desired_capacity    = each.value.size.desired
  target_group_arns   = [aws_lb_target_group.kai.arn]

  # EC2, not ELB: a node that is slow to join, or draining, is not ready, and must not be killed for it. Replicas would go with it.
  health_check_type         = "EC2"
  health_check_grace_period = 60
  default_instance_warmup   = 0 # the launching hook ends when the node is ready
  wait_for_capacity_timeout = "0"

  # Balancing moves whole nodes for the sake of one that is missing in a zone.
  suspended_processes = ["AZRebalance"]
  capacity_rebalance  = each.value.spot

  termination_policies    = ["OldestLaunchTemplate", "OldestInstance"]
  enabled_metrics         = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupPendingInstances", "GroupTerminatingInstances"]
  force_delete            = false
  service_linked_role_arn = null

  mixed_instances_policy {
    instances_distribution {
      on_demand_percentage_above_base_capacity = each.value.spot ? 0 : 100
      on_demand_allocation_strategy            = "prioritized"
      spot_allocation_strategy                 = "price-capacity-optimized"
    }
    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.node[each.key].id
        version            = aws_launch_template.node[each.key].latest_version
      }
      dynamic "override" {
        for_each = each.value.instance_types
        content {
          instance_type = override.value
        }
      }
    }
  }

  # One more first, then one less; back to what was if it does not get ready.
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 110
      auto_rollback          = true
      skip_matching          = true
    }
  }

  # Hooks that are there before the first instance is.
  initial_lifecycle_hook {
    name                 = "ready"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    heartbeat_timeout    = var.join_timeout
    default_result       = "ABANDON"
  }
  initial_lifecycle_hook {
    name                 = "drained"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = 120 # the node sends heartbeats while it hands over
    default_result       = "CONTINUE"
  }

  dynamic "tag" {
    for_each = merge(var.tags, { Name = local.group_names[each.key], (local.cluster_tag) = var.name })
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  lifecycle {
    # Autoscaling, and operators, change it.
    ignore_changes = [desired_capacity]
  }

  depends_on = [
    aws_iam_role_policy.node,
    aws_vpc_security_group_egress_rule.apis,
    aws_vpc_security_group_egress_rule.node,
    aws_vpc_security_group_ingress_rule.node,
    aws_s3_bucket_server_side_encryption_configuration.snapshots,
  ]
}

resource "aws_autoscaling_policy" "cpu" {
  count = var.scale_out_cpu == null ? 0 : 1

  name                   = "${var.name}-kai-cpu"
  autoscaling_group_name = aws_autoscaling_group.node["main"].name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = var.scale_out_cpu
    # A store does not shrink by itself in the evening to grow again in the morning.
    disable_scale_in = true
    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}
