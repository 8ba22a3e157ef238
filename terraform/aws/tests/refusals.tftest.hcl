# What is refused, each with its fix.

mock_provider "aws" {
  override_data {
    target = data.aws_partition.current
    values = { partition = "aws" }
  }
  override_data {
    target = data.aws_region.current
    values = { name = "eu-central-1" }
  }
}

variables {
  name         = "shop"
  image        = "registry.example/kai:v1"
  vpc_id       = "vpc-1"
  subnet_ids   = ["subnet-a", "subnet-b", "subnet-c"]
  client_cidrs = ["10.0.0.0/16"]
}

run "name" {
  command = plan
  variables {
    name = "Shop_1"
  }
  expect_failures = [var.name]
}

run "image_latest" {
  command = plan
  variables {
    image = "registry.example/kai:latest"
  }
  expect_failures = [var.image]
}

run "image_without_tag" {
  command = plan
  variables {
    image = "registry.example:5000/kai"
  }
  expect_failures = [var.image]
}

run "fewer_than_replicas" {
  command = plan
  variables {
    size = { min = 2, max = 9, desired = 3 }
  }
  expect_failures = [var.size]
}

run "desired_out_of_range" {
  command = plan
  variables {
    size = { min = 3, max = 4, desired = 5 }
  }
  expect_failures = [var.size]
}

run "founders_who_never_come" {
  command = plan
  variables {
    founders = 10
  }
  expect_failures = [var.founders]
}

run "quorum_that_does_not_overlap" {
  command = plan
  variables {
    quorum = "3:1:2"
  }
  expect_failures = [var.quorum]
}

run "nobody_may_connect" {
  command = plan
  variables {
    client_cidrs = []
  }
  expect_failures = [var.client_cidrs]
}

run "everybody_may_connect" {
  command = plan
  variables {
    client_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.client_cidrs]
}

run "everybody_is_operator" {
  command = plan
  variables {
    admin_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.admin_cidrs]
}

run "spot_beside_on_demand" {
  command = plan
  variables {
    spot = { subnet_ids = ["subnet-c"], size = { min = 0, max = 2, desired = 1 } }
  }
  expect_failures = [var.spot]
}

run "spot_in_two_zones" {
  command = plan
  variables {
    subnet_ids = ["subnet-a"]
    spot       = { subnet_ids = ["subnet-b", "subnet-c"], size = { min = 2, max = 4, desired = 2 } }
  }
  expect_failures = [var.spot]
}

run "setting_of_the_module" {
  command = plan
  variables {
    settings = { KAI_QUORUM = "5:3:3" }
  }
  expect_failures = [var.settings]
}

run "key_in_plain" {
  command = plan
  variables {
    settings = { KAI_GOSSIP_KEY = "secret" }
  }
  expect_failures = [var.settings]
}

run "secret_that_is_none" {
  command = plan
  variables {
    secrets = { KAI_GOSSIP_KEY = "secret" }
  }
  expect_failures = [var.secrets]
}

run "small_disk" {
  command = plan
  variables {
    data_volume = { size = 5 }
  }
  expect_failures = [var.data_volume]
}

run "key_without_bucket" {
  command = plan
  variables {
    backup = { kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/1" }
  }
  expect_failures = [var.backup]
}

run "interval" {
  command = plan
  variables {
    backup = { interval = "hourly" }
  }
  expect_failures = [var.backup]
}

run "drain_too_short" {
  command = plan
  variables {
    drain_timeout = 5
  }
  expect_failures = [var.drain_timeout]
}

run "to_zero_is_allowed" {
  command = plan
  variables {
    size     = { min = 0, max = 9, desired = 0 }
    founders = 3
  }
  assert {
    condition     = aws_autoscaling_group.node["main"].desired_capacity == 0
    error_message = "a sealed cluster goes to zero"
  }
}
