# Least privilege, statement by statement.

mock_provider "aws" {
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws" }
  }
  override_data {
    target = data.aws_region.current
    values = { name = "eu-central-1" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::shop-kai-20261128", bucket = "shop-kai-20261128" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/kai/shop" }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/net/shop-kai/0123456789abcdef" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/shop-kai/0123456789abcdef" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/shop-kai" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 7 }
  }
}

variables {
  name         = "shop"
  image        = "registry.example/kai:v1"
  vpc_id       = "vpc-1"
  subnet_ids   = ["subnet-a", "subnet-b", "subnet-c"]
  client_cidrs = ["10.0.0.0/16"]
}

run "least" {
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.node.policy).Statement : s.Sid] == ["FindPeers", "ComeAndGo", "ListSnapshots", "Snapshots", "Log", "SnapshotKey"]
    error_message = "these statements, and no others"
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_iam_role_policy.node.policy).Statement : s.Effect == "Allow" && !strcontains(jsonencode(s.Action), "*")])
    error_message = "no wildcard among actions"
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.node.policy).Statement[0] == {
      Sid      = "FindPeers"
      Effect   = "Allow"
      Action   = ["ec2:DescribeInstances", "autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLifecycleHooks"]
      Resource = "*"
    }
    error_message = "descriptions of everything, as AWS allows no less"
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.node.policy).Statement[1] == {
      Sid      = "ComeAndGo"
      Effect   = "Allow"
      Action   = ["autoscaling:RecordLifecycleActionHeartbeat", "autoscaling:CompleteLifecycleAction"]
      Resource = ["arn:aws:autoscaling:eu-central-1:*:autoScalingGroup:*:autoScalingGroupName/shop-kai-main"]
    }
    error_message = "lifecycle actions of its own group"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.node.policy).Statement[2] == { Sid = "ListSnapshots", Effect = "Allow", Action = "s3:ListBucket", Resource = "arn:aws:s3:::shop-kai-20261128" }
    error_message = "listing its own bucket"
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.node.policy).Statement[3] == {
      Sid      = "Snapshots"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
      Resource = "arn:aws:s3:::shop-kai-20261128/shop/*"
    }
    error_message = "objects below its own prefix"
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.node.policy).Statement[4] == {
      Sid      = "Log"
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource = "arn:aws:logs:eu-central-1:123456789012:log-group:/kai/shop:*"
    }
    error_message = "writing its own log"
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.node.policy).Statement[5] == {
      Sid       = "SnapshotKey"
      Effect    = "Allow"
      Action    = ["kms:GenerateDataKey", "kms:Decrypt"]
      Resource  = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
      Condition = { StringEquals = { "kms:ViaService" = "s3.eu-central-1.amazonaws.com" } }
    }
    error_message = "the bucket's key, through S3 only"
  }
  assert {
    condition     = jsondecode(aws_iam_role.node.assume_role_policy).Statement == [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
    error_message = "for instances only"
  }
  assert {
    condition     = aws_iam_role_policy_attachment.ssm[0].policy_arn == "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
    error_message = "sessions instead of SSH"
  }
}

run "more_if_asked_for" {
  variables {
    subnet_ids         = ["subnet-a", "subnet-b"]
    size               = { min = 2, max = 6, desired = 4 }
    spot               = { subnet_ids = ["subnet-c"], size = { min = 1, max = 3, desired = 2 } }
    backup             = { bucket = "snapshots" }
    secrets            = { KAI_BACKUP_KEY = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/backup-a1b2c3" }
    ecr_repository_arn = "arn:aws:ecr:eu-central-1:123456789012:repository/kai"
    image              = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/kai:v1"
    ssm                = false
  }
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.node.policy).Statement : s.Sid] == ["FindPeers", "ComeAndGo", "ListSnapshots", "Snapshots", "Log", "Secrets", "Registry", "Image"]
    error_message = "a bucket without a key needs no key; secrets and a registry have statements"
  }
  assert {
    condition     = toset(jsondecode(aws_iam_role_policy.node.policy).Statement[1].Resource) == toset([for g in ["main", "spot"] : "arn:aws:autoscaling:eu-central-1:*:autoScalingGroup:*:autoScalingGroupName/shop-kai-${g}"])
    error_message = "lifecycle actions of both groups"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.node.policy).Statement[3].Resource == "arn:aws:s3:::snapshots/shop/*" && length(aws_s3_bucket.snapshots) == 0 && length(aws_kms_key.snapshots) == 0
    error_message = "the bucket that is named, and none created"
  }
  assert {
    condition = jsondecode(aws_iam_role_policy.node.policy).Statement[5] == {
      Sid      = "Secrets"
      Effect   = "Allow"
      Action   = "secretsmanager:GetSecretValue"
      Resource = ["arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop/backup-a1b2c3"]
    }
    error_message = "the secrets that are named"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.node.policy).Statement[6] == { Sid = "Registry", Effect = "Allow", Action = "ecr:GetAuthorizationToken", Resource = "*" }
    error_message = "a token of the registry"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.node.policy).Statement[7] == { Sid = "Image", Effect = "Allow", Action = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"], Resource = "arn:aws:ecr:eu-central-1:123456789012:repository/kai" }
    error_message = "the image's repository, to read"
  }
  assert {
    condition     = length(aws_iam_role_policy_attachment.ssm) == 0
    error_message = "no sessions"
  }
}
