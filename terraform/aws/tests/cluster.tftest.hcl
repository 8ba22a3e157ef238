# What would be created, with a provider that creates nothing.

mock_provider "aws" {
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws" }
  }
  override_data {
    target = data.aws_region.current
    values = { name = "eu-central-1" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 7 }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/net/shop-kai/0123456789abcdef", arn_suffix = "net/shop-kai/0123456789abcdef", dns_name = "shop-kai-0123456789abcdef.elb.eu-central-1.amazonaws.com" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/shop-kai/0123456789abcdef", arn_suffix = "targetgroup/shop-kai/0123456789abcdef" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::shop-kai-20261128", bucket = "shop-kai-20261128" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/shop-kai" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/kai/shop" }
  }
}

variables {
  name         = "shop"
  image        = "registry.example/kai:v1"
  vpc_id       = "vpc-1"
  subnet_ids   = ["subnet-a", "subnet-b", "subnet-c"]
  client_cidrs = ["10.0.0.0/16"]
}

run "three_nodes_in_three_zones" {
  assert {
    condition     = length(aws_autoscaling_group.node) == 1
    error_message = "without spot there is one group"
  }
  assert {
    condition     = aws_autoscaling_group.node["main"].min_size == 3 && aws_autoscaling_group.node["main"].max_size == 9 && aws_autoscaling_group.node["main"].desired_capacity == 3
    error_message = "3 to 9 nodes, 3 at first"
  }
  assert {
    condition     = toset(aws_autoscaling_group.node["main"].vpc_zone_identifier) == toset(["subnet-a", "subnet-b", "subnet-c"])
    error_message = "nodes are spread over all subnets"
  }
  assert {
    condition     = one(aws_autoscaling_group.node["main"].mixed_instances_policy[0].instances_distribution).on_demand_percentage_above_base_capacity == 100
    error_message = "all of the main group is on demand"
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.node["main"].user_data), "\nKAI_BOOTSTRAP_EXPECT=3\n")
    error_message = "as many found the cluster as are desired"
  }
  assert {
    condition     = output.endpoint == "shop-kai-0123456789abcdef.elb.eu-central-1.amazonaws.com:11211" && !output.tls
    error_message = "the endpoint is the load balancer's, for memcache clients"
  }
}

run "the_group_must_not_kill_who_is_slow" {
  assert {
    condition     = aws_autoscaling_group.node["main"].health_check_type == "EC2"
    error_message = "a node that is not ready, because it joins or drains, is not dead"
  }
  assert {
    condition     = contains(aws_autoscaling_group.node["main"].suspended_processes, "AZRebalance")
    error_message = "no rebalancing between zones"
  }
  assert {
    condition     = aws_autoscaling_group.node["main"].capacity_rebalance == false
    error_message = "nothing to rebalance on demand"
  }
}

run "refresh_keeps_all" {
  assert {
    condition     = one(aws_autoscaling_group.node["main"].instance_refresh[0].preferences).min_healthy_percentage == 100 && one(aws_autoscaling_group.node["main"].instance_refresh[0].preferences).max_healthy_percentage == 110
    error_message = "one more before one less"
  }
  assert {
    condition     = one(aws_autoscaling_group.node["main"].instance_refresh[0].preferences).auto_rollback
    error_message = "a build that does not get ready is rolled back"
  }
  assert {
    condition     = one(one(aws_autoscaling_group.node["main"].mixed_instances_policy[0].launch_template).launch_template_specification).version == "7"
    error_message = "a refresh and its rollback need a version, not $Latest"
  }
}

run "hooks" {
  variables {
    join_timeout = 1200
  }
  assert {
    condition     = length(aws_autoscaling_group.node["main"].initial_lifecycle_hook) == 2
    error_message = "one hook for coming, one for going"
  }
  assert {
    condition = anytrue([for h in aws_autoscaling_group.node["main"].initial_lifecycle_hook :
    h.lifecycle_transition == "autoscaling:EC2_INSTANCE_LAUNCHING" && h.default_result == "ABANDON" && h.heartbeat_timeout == 1200])
    error_message = "an instance that never gets ready is given up after join_timeout"
  }
  assert {
    condition = anytrue([for h in aws_autoscaling_group.node["main"].initial_lifecycle_hook :
    h.lifecycle_transition == "autoscaling:EC2_INSTANCE_TERMINATING" && h.default_result == "CONTINUE" && h.heartbeat_timeout == 120])
    error_message = "the end waits for a node that hands over, as long as it sends heartbeats"
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.node["main"].user_data), "--lifecycle-hook-name ready ")
    error_message = "the instance tells its hook that it is ready"
  }
}

run "health_checks" {
  assert {
    condition = alltrue([for h in aws_lb_target_group.kai.health_check :
    h.protocol == "HTTP" && h.port == "11214" && h.path == "/readyz" && h.matcher == "200" && h.interval == 5])
    error_message = "the load balancer asks /readyz on the admin port"
  }
  assert {
    condition     = alltrue([for s in aws_lb_target_group.kai.target_health_state : !s.enable_unhealthy_connection_termination])
    error_message = "a node that drains keeps the connections it has"
  }
  assert {
    condition     = aws_lb_target_group.kai.port == 11211 && aws_lb_target_group.kai.protocol == "TCP" && aws_lb_listener.clients.protocol == "TCP"
    error_message = "plain TCP to the memcache port"
  }
  assert {
    condition     = aws_lb.kai.internal && aws_lb.kai.load_balancer_type == "network" && aws_lb.kai.enable_cross_zone_load_balancing
    error_message = "an internal network load balancer across zones"
  }
}

run "imdsv2" {
  assert {
    condition = alltrue([for m in aws_launch_template.node["main"].metadata_options :
    m.http_tokens == "required" && m.http_put_response_hop_limit == 1 && m.http_endpoint == "enabled"])
    error_message = "metadata by tokens only, and not from bridged containers"
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.node["main"].user_data), " --network host ") && strcontains(base64decode(aws_launch_template.node["main"].user_data), "X-aws-ec2-metadata-token: ")
    error_message = "the container uses the host's network, one hop from the metadata; and the script a token"
  }
}

run "encryption" {
  assert {
    condition     = length(aws_launch_template.node["main"].block_device_mappings) == 2 && alltrue([for d in aws_launch_template.node["main"].block_device_mappings : one(d.ebs).encrypted == "true"])
    error_message = "all volumes are encrypted"
  }
  assert {
    condition = alltrue([for r in aws_s3_bucket_server_side_encryption_configuration.snapshots[0].rule :
    r.bucket_key_enabled && one(r.apply_server_side_encryption_by_default).sse_algorithm == "aws:kms" && one(r.apply_server_side_encryption_by_default).kms_master_key_id == aws_kms_key.snapshots[0].arn])
    error_message = "snapshots are encrypted with a key of their own"
  }
  assert {
    condition     = aws_kms_key.snapshots[0].enable_key_rotation
    error_message = "the key rotates"
  }
  assert {
    condition = jsondecode(aws_s3_bucket_policy.snapshots[0].policy).Statement == [{
      Sid       = "OnlyTLS"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = ["arn:aws:s3:::shop-kai-20261128", "arn:aws:s3:::shop-kai-20261128/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
    error_message = "the bucket is read and written by TLS only"
  }
  assert {
    condition = (aws_s3_bucket_public_access_block.snapshots[0].block_public_acls && aws_s3_bucket_public_access_block.snapshots[0].block_public_policy &&
    aws_s3_bucket_public_access_block.snapshots[0].ignore_public_acls && aws_s3_bucket_public_access_block.snapshots[0].restrict_public_buckets)
    error_message = "the bucket is not public"
  }
  assert {
    condition     = !aws_s3_bucket.snapshots[0].force_destroy && aws_lb.kai.enable_deletion_protection
    error_message = "destroy does not take snapshots along by default"
  }
}

run "no_rule_deletes_snapshots" {
  assert {
    condition     = alltrue([for r in aws_s3_bucket_lifecycle_configuration.snapshots[0].rule : alltrue([for e in r.expiration : coalesce(e.days, 0) == 0 && e.date == null])])
    error_message = "current objects are shared by snapshots: only Kai deletes them"
  }
}

run "settings_reach_the_node" {
  variables {
    settings      = { KAI_CACHE_BYTES = "2GiB", KAI_EXPIRATION = "true" }
    drain_timeout = 600
    founders      = 5
    size          = { min = 3, max = 9, desired = 6 }
  }
  assert {
    condition = alltrue([for line in ["KAI_CACHE_BYTES=2GiB", "KAI_EXPIRATION=true", "KAI_DRAIN_TIMEOUT=600s", "KAI_BOOTSTRAP_EXPECT=5", "KAI_QUORUM=3:2:2", "KAI_CLUSTER=shop",
      "KAI_DISCOVERY=aws:tag=kai-cluster=shop", "KAI_BACKUP_URL=s3://shop-kai-20261128?region=eu-central-1&prefix=shop/", "AWS_REGION=eu-central-1"] :
    strcontains(base64decode(aws_launch_template.node["main"].user_data), "\n${line}\n")])
    error_message = "the container gets all settings"
  }
  assert {
    condition     = !strcontains(base64decode(aws_launch_template.node["main"].user_data), "MemTotal")
    error_message = "a cache size that is set stays"
  }
  assert {
    condition     = contains([for t in aws_autoscaling_group.node["main"].tag : "${t.key}=${t.value}" if t.propagate_at_launch], "kai-cluster=shop")
    error_message = "instances have the tag that discovery looks for"
  }
  assert {
    condition     = aws_lb_target_group.kai.deregistration_delay == "600"
    error_message = "the load balancer waits as long as a node may hand over"
  }
}

run "secrets_are_fetched_not_written" {
  variables {
    secrets = { KAI_GOSSIP_KEY = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/gossip-a1b2c3" }
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.node["main"].user_data), "get-secret-value --region eu-central-1 --secret-id 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/gossip-a1b2c3'")
    error_message = "the instance asks Secrets Manager"
  }
}

run "spot_in_a_zone_of_its_own" {
  variables {
    subnet_ids = ["subnet-a", "subnet-b"]
    size       = { min = 2, max = 6, desired = 4 }
    spot       = { subnet_ids = ["subnet-c"], size = { min = 1, max = 3, desired = 2 }, instance_types = ["m7i.large", "m6i.large", "m7a.large"] }
  }
  assert {
    condition     = length(aws_autoscaling_group.node) == 2 && length(setintersection(aws_autoscaling_group.node["main"].vpc_zone_identifier, aws_autoscaling_group.node["spot"].vpc_zone_identifier)) == 0
    error_message = "two groups that share no subnet"
  }
  assert {
    condition = alltrue([for d in aws_autoscaling_group.node["spot"].mixed_instances_policy[0].instances_distribution :
    d.on_demand_percentage_above_base_capacity == 0 && d.spot_allocation_strategy == "price-capacity-optimized"])
    error_message = "the second is spot, of the types least likely to be taken away"
  }
  assert {
    condition     = length(aws_autoscaling_group.node["spot"].mixed_instances_policy[0].launch_template[0].override) == 3 && aws_autoscaling_group.node["spot"].capacity_rebalance
    error_message = "several types, replaced before they are interrupted"
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.node["spot"].user_data), "\nKAI_DRAIN_TIMEOUT=100s\n")
    error_message = "a spot instance has two minutes"
  }
  assert {
    condition     = strcontains(base64decode(aws_launch_template.node["spot"].user_data), "\nKAI_BOOTSTRAP_EXPECT=6\n") && strcontains(base64decode(aws_launch_template.node["main"].user_data), "\nKAI_BOOTSTRAP_EXPECT=6\n")
    error_message = "both groups found one cluster"
  }
}

run "network" {
  variables {
    client_security_group_ids = ["sg-shop"]
    admin_cidrs               = ["10.9.0.0/24"]
  }
  assert {
    condition = alltrue([for r in aws_vpc_security_group_ingress_rule.clients : r.from_port == 11211 && r.to_port == 11211]) && toset([for r in aws_vpc_security_group_ingress_rule.clients :
    try(coalesce(r.cidr_ipv4, r.referenced_security_group_id), "")]) == toset(["10.0.0.0/16", "sg-shop"])
    error_message = "clients reach the memcache port of the load balancer, and nothing else"
  }
  assert {
    condition     = toset([for r in aws_vpc_security_group_ingress_rule.node : "${r.ip_protocol} ${r.from_port}"]) == toset(["tcp 11212", "tcp 11213", "udp 11213", "tcp 11214"])
    error_message = "nodes reach each other"
  }
  assert {
    condition     = toset([for r in aws_vpc_security_group_ingress_rule.lb : r.from_port]) == toset([11211, 11214])
    error_message = "the load balancer reaches clients' port and health"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.admin) == 1 && alltrue([for r in aws_vpc_security_group_ingress_rule.admin : r.cidr_ipv4 == "10.9.0.0/24" && r.from_port == 11214 && r.to_port == 11214])
    error_message = "operators reach the admin port"
  }
  assert {
    condition     = alltrue([for n in aws_launch_template.node["main"].network_interfaces : n.associate_public_ip_address == "false"])
    error_message = "no public addresses"
  }
}

run "no_endpoint_unless_asked" {
  assert {
    condition     = length(aws_vpc_endpoint.s3) == 0
    error_message = "the VPC may have one"
  }
}

run "endpoint" {
  variables {
    s3_endpoint_route_table_ids = ["rtb-1"]
    dns                         = { zone_id = "Z1", name = "kai.example" }
    tls_certificate_arn         = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
    scale_out_cpu               = 60
    data_volume                 = null
  }
  assert {
    condition     = aws_vpc_endpoint.s3[0].service_name == "com.amazonaws.eu-central-1.s3" && aws_vpc_endpoint.s3[0].vpc_endpoint_type == "Gateway"
    error_message = "S3 without the NAT"
  }
  assert {
    condition     = aws_lb_listener.clients.protocol == "TLS" && output.tls && aws_route53_record.kai[0].name == "kai.example"
    error_message = "TLS, under a name"
  }
  assert {
    condition     = alltrue([for t in aws_autoscaling_policy.cpu[0].target_tracking_configuration : t.target_value == 60 && t.disable_scale_in])
    error_message = "it grows by itself, and does not shrink"
  }
  assert {
    condition     = length(aws_launch_template.node["main"].block_device_mappings) == 1 && strcontains(base64decode(aws_launch_template.node["main"].user_data), "nvme-Amazon_EC2_NVMe_Instance_Storage_")
    error_message = "the instance's own disk holds the data"
  }
}
