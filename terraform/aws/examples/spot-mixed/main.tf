# Four nodes on demand in two zones, two on spot in the third: one of each record's three replicas is on spot, and a quorum never is.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.82, < 7.0"
    }
  }
}

variable "image" {
  description = "Container image of Kai, with its tag."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "on_demand_subnet_ids" {
  description = "Private subnets of two zones."
  type        = list(string)
}

variable "spot_subnet_id" {
  description = "A private subnet of a third zone."
  type        = string
}

variable "client_security_group_ids" {
  description = "Security groups of the clients."
  type        = list(string)
}

module "kai" {
  source = "../.."

  name                      = "kai"
  image                     = var.image
  vpc_id                    = var.vpc_id
  client_security_group_ids = var.client_security_group_ids

  subnet_ids     = var.on_demand_subnet_ids
  size           = { min = 2, max = 8, desired = 4 }
  instance_types = ["m7i.large"]

  spot = {
    subnet_ids     = [var.spot_subnet_id]
    size           = { min = 1, max = 4, desired = 2 }
    instance_types = ["m7i.large", "m6i.large", "m7a.large", "m6a.large", "m5.large"]
  }
}

output "endpoint" {
  description = "For memcache clients."
  value       = module.kai.endpoint
}
