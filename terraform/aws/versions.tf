terraform {
  # 1.9: validations may name other variables.
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.82, < 7.0"
    }
  }
}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.name

  # Discovery finds nodes by this tag, in whichever group they are.
  cluster_tag = "kai-cluster"

  ports = {
    clients = 11211
    peers   = 11212
    gossip  = 11213
    admin   = 11214
  }

  replicas = tonumber(split(":", var.quorum)[0])

  # One autoscaling group on demand, and perhaps one of spot instances in zones of its own.
  groups = merge(
    { main = { subnet_ids = var.subnet_ids, size = var.size, instance_types = var.instance_types, spot = false } },
    var.spot == null ? {} : {
      spot = { subnet_ids = var.spot.subnet_ids, size = var.spot.size, instance_types = coalesce(var.spot.instance_types, var.instance_types), spot = true }
    },
  )

  founders = coalesce(var.founders, sum([for g in local.groups : g.size.desired]))
}
