# Three nodes in a VPC that is there: name its subnets, one in each of three zones.

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

variable "subnet_ids" {
  description = "Three private subnets, each in another zone."
  type        = list(string)
}

variable "client_cidrs" {
  description = "Networks of the clients."
  type        = list(string)
}

module "kai" {
  source = "../.."

  name         = "kai"
  image        = var.image
  vpc_id       = var.vpc_id
  subnet_ids   = var.subnet_ids
  client_cidrs = var.client_cidrs
}

output "endpoint" {
  description = "For memcache clients."
  value       = module.kai.endpoint
}
