# Everything: a VPC of its own, five nodes in three zones, TLS for clients, encrypted gossip and snapshots, alarms, a name.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.82, < 7.0"
    }
  }
}

variable "region" {
  description = "Where."
  type        = string
  default     = "eu-central-1"
}

variable "image" {
  description = "Container image of Kai in ECR, with its tag."
  type        = string
}

variable "ecr_repository_arn" {
  description = "ARN of that repository."
  type        = string
}

variable "gossip_key_secret_arn" {
  description = "Secret of Secrets Manager that holds KAI_GOSSIP_KEY."
  type        = string
}

variable "backup_key_secret_arn" {
  description = "Secret of Secrets Manager that holds KAI_BACKUP_KEY. Keep a copy elsewhere: without it snapshots are lost."
  type        = string
}

variable "certificate_arn" {
  description = "ACM certificate for the name that clients use; null for plain TCP."
  type        = string
  default     = null
}

variable "dns" {
  description = "Route 53 zone and the name in it; null for the load balancer's own."
  type        = object({ zone_id = string, name = string })
  default     = null
}

variable "alarm_email" {
  description = "Who hears alarms; null for nobody."
  type        = string
  default     = null
}

provider "aws" {
  region = var.region
  default_tags {
    tags = { service = "kai" }
  }
}

locals {
  cidr  = "10.64.0.0/16"
  zones = toset(["a", "b", "c"])
  index = { a = 0, b = 1, c = 2 }
}

resource "aws_vpc" "kai" {
  cidr_block           = local.cidr
  enable_dns_hostnames = true
  tags                 = { Name = "kai" }
}

resource "aws_internet_gateway" "kai" {
  vpc_id = aws_vpc.kai.id
  tags   = { Name = "kai" }
}

# A public subnet in each zone, for its NAT; a private one for nodes. A NAT for each zone, so that the loss of one zone is one.
resource "aws_subnet" "public" {
  for_each = local.zones

  vpc_id            = aws_vpc.kai.id
  availability_zone = "${var.region}${each.key}"
  cidr_block        = cidrsubnet(local.cidr, 8, local.index[each.key])
  tags              = { Name = "kai-public-${each.key}" }
}

resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id            = aws_vpc.kai.id
  availability_zone = "${var.region}${each.key}"
  cidr_block        = cidrsubnet(local.cidr, 4, local.index[each.key] + 1)
  tags              = { Name = "kai-private-${each.key}" }
}

resource "aws_eip" "nat" {
  for_each = local.zones

  domain = "vpc"
  tags   = { Name = "kai-nat-${each.key}" }
}

resource "aws_nat_gateway" "kai" {
  for_each = local.zones

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = { Name = "kai-${each.key}" }

  depends_on = [aws_internet_gateway.kai, aws_route_table_association.public]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.kai.id
  tags   = { Name = "kai-public" }
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.kai.id
  }
}

resource "aws_route_table" "private" {
  for_each = local.zones

  vpc_id = aws_vpc.kai.id
  tags   = { Name = "kai-private-${each.key}" }
  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.kai[each.key].id
  }
}

resource "aws_route_table_association" "public" {
  for_each = local.zones

  subnet_id      = aws_subnet.public[each.key].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "private" {
  for_each = local.zones

  subnet_id      = aws_subnet.private[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}

resource "aws_sns_topic" "alarms" {
  name = "kai-alarms"
}

resource "aws_sns_topic_subscription" "alarms" {
  count = var.alarm_email == null ? 0 : 1

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_email
}

module "kai" {
  source = "../.."

  name                        = "kai"
  image                       = var.image
  ecr_repository_arn          = var.ecr_repository_arn
  vpc_id                      = aws_vpc.kai.id
  subnet_ids                  = [for z in sort(local.zones) : aws_route_table_association.private[z].subnet_id] # once there is a way to the NAT
  size                        = { min = 3, max = 12, desired = 5 }
  instance_types              = ["m7g.large", "m6g.large"]
  architecture                = "arm64"
  client_cidrs                = [local.cidr]
  admin_cidrs                 = [local.cidr]
  tls_certificate_arn         = var.certificate_arn
  dns                         = var.dns
  data_volume                 = { size = 200, iops = 6000, throughput = 250 }
  secrets                     = { KAI_GOSSIP_KEY = var.gossip_key_secret_arn, KAI_BACKUP_KEY = var.backup_key_secret_arn }
  backup                      = { interval = "30m", keep = 48 }
  s3_endpoint_route_table_ids = [for z in sort(local.zones) : aws_route_table.private[z].id]
  scale_out_cpu               = 60
  alarm_topic_arns            = [aws_sns_topic.alarms.arn]
}

output "endpoint" {
  description = "For memcache clients."
  value       = module.kai.endpoint
}

output "backup_url" {
  description = "For kai backup."
  value       = module.kai.backup_url
}
