# What a node may do, and nothing else. tests/iam.tftest.hcl holds each statement.

locals {
  group_arns = [for g in keys(local.groups) :
  "arn:${local.partition}:autoscaling:${local.region}:*:autoScalingGroup:*:autoScalingGroupName/${local.group_names[g]}"]

  statements = concat(
    [
      {
        # Descriptions cannot be restricted to resources.
        Sid      = "FindPeers"
        Effect   = "Allow"
        Action   = ["ec2:DescribeInstances", "autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLifecycleHooks"]
        Resource = "*"
      },
      {
        Sid      = "ComeAndGo"
        Effect   = "Allow"
        Action   = ["autoscaling:RecordLifecycleActionHeartbeat", "autoscaling:CompleteLifecycleAction"]
        Resource = local.group_arns
      },
      {
        # Of the whole bucket: who may list a prefix only is told 403 of an object that is not there, and 404 is what founding and snapshots go by.
        Sid      = "ListSnapshots"
        Effect   = "Allow"
        Action   = "s3:ListBucket"
        Resource = local.bucket_arn
      },
      {
        # Deleting is pruning. Large objects go up in parts, and failed ones are aborted.
        Sid      = "Snapshots"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
        Resource = "${local.bucket_arn}/${local.prefix}*"
      },
      {
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.kai.arn}:*"
      },
    ],
    [for arn in local.has_bucket_key ? [local.bucket_key_arn] : [] : {
      Sid       = "SnapshotKey"
      Effect    = "Allow"
      Action    = ["kms:GenerateDataKey", "kms:Decrypt"]
      Resource  = arn
      Condition = { StringEquals = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" } }
    }],
    [for arns in length(var.secrets) == 0 ? [] : [values(var.secrets)] : {
      Sid      = "Secrets"
      Effect   = "Allow"
      Action   = "secretsmanager:GetSecretValue"
      Resource = arns
    }],
    [for arn in var.ecr_repository_arn[*] : {
      Sid      = "Registry"
      Effect   = "Allow"
      Action   = "ecr:GetAuthorizationToken"
      Resource = "*"
    }],
    [for arn in var.ecr_repository_arn[*] : {
      Sid      = "Image"
      Effect   = "Allow"
      Action   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
      Resource = arn
    }],
  )
}

resource "aws_iam_role" "node" {
  name_prefix          = "${var.name}-kai-"
  description          = "Nodes of ${var.name}"
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "node" {
  name   = "kai"
  role   = aws_iam_role.node.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.statements })
}

resource "aws_iam_role_policy_attachment" "ssm" {
  count = var.ssm ? 1 : 0

  role       = aws_iam_role.node.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

resource "aws_iam_instance_profile" "node" {
  name_prefix = "${var.name}-kai-"
  role        = aws_iam_role.node.name
  tags        = var.tags
}
