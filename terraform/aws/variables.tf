variable "name" {
  description = "Name of the cluster; of its resources, too."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 24 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen: load balancers allow no more than 32, and the module adds to it."
  }
}

variable "image" {
  description = "Container image of Kai, with a tag or a digest: what `make image` builds, in a registry that the instances reach."
  type        = string
  validation {
    condition     = can(regex("(:[^:/]+|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a tag other than latest, or a digest: otherwise instances of one group may run different builds."
  }
}

variable "ecr_repository_arn" {
  description = "ARN of the ECR repository the image is in; instances may pull from it. Null if it is elsewhere, and public."
  type        = string
  default     = null
}

variable "vpc_id" {
  description = "VPC of the cluster."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, one in each zone that nodes are to be in: three for a cluster that outlives the loss of any one. They need a way to EC2's and autoscaling's API and to the registry."
  type        = list(string)
  validation {
    condition     = length(var.subnet_ids) > 0 && length(var.subnet_ids) == length(distinct(var.subnet_ids))
    error_message = "subnet_ids must name at least one subnet, and each once."
  }
}

variable "size" {
  description = "How many nodes the group on demand has: at least, at most, and now. Autoscaling may change the last."
  type        = object({ min = number, max = number, desired = number })
  default     = { min = 3, max = 9, desired = 3 }
  validation {
    condition     = var.size.min <= var.size.desired && var.size.desired <= var.size.max
    error_message = "size must have min <= desired <= max."
  }
  validation {
    condition     = var.size.desired == 0 || var.size.min + try(var.spot.size.min, 0) >= tonumber(split(":", var.quorum)[0])
    error_message = "size.min, with that of spot, must be at least N of quorum (N:R:W): with fewer nodes every record has fewer replicas. A cluster that was sealed may go to 0: set min and desired to 0."
  }
}

variable "founders" {
  description = "How many nodes found the cluster together; null for as many as are desired. It counts only once, so leave it alone afterwards, or set it to what it was."
  type        = number
  default     = null
  validation {
    condition     = var.founders == null ? true : var.founders >= 1 && var.founders <= var.size.max + try(var.spot.size.max, 0)
    error_message = "founders must be from 1 to what the groups may have: else the cluster is never founded."
  }
}

variable "instance_types" {
  description = "Instance types, all of one architecture. The first is preferred on demand; spot takes the cheapest that is not likely to be taken away soon."
  type        = list(string)
  default     = ["m7i.large"]
  validation {
    condition     = length(var.instance_types) > 0
    error_message = "instance_types must name at least one."
  }
}

variable "architecture" {
  description = "Architecture of the instance types and the image: x86_64 or arm64."
  type        = string
  default     = "x86_64"
  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "architecture must be x86_64 or arm64."
  }
}

variable "ami_id" {
  description = "AMI with systemd, dnf, the AWS CLI and xfsprogs; null for the newest Amazon Linux 2023 at each launch."
  type        = string
  default     = null
}

variable "spot" {
  description = "A second group, of spot instances, in subnets of zones that subnet_ids has none in. As replicas spread over zones, at most one of three is then on spot. Null for none."
  type = object({
    subnet_ids     = list(string)
    size           = object({ min = number, max = number, desired = number })
    instance_types = optional(list(string))
  })
  default = null
  validation {
    condition     = var.spot == null ? true : length(var.spot.subnet_ids) > 0 && length(setintersection(var.spot.subnet_ids, var.subnet_ids)) == 0
    error_message = "spot.subnet_ids must name subnets that are not in subnet_ids, and in zones of their own: two replicas of a record could be lost with one interruption otherwise."
  }
  validation {
    condition     = var.spot == null ? true : length(var.spot.subnet_ids) <= tonumber(split(":", var.quorum)[0]) - max([for i in range(2) : tonumber(split(":", var.quorum)[i + 1])]...)
    error_message = "spot.subnet_ids must be in at most as many zones as replicas may be missing: N less the larger of R and W of quorum."
  }
  validation {
    condition     = var.spot == null ? true : var.spot.size.min <= var.spot.size.desired && var.spot.size.desired <= var.spot.size.max
    error_message = "spot.size must have min <= desired <= max."
  }
}

variable "quorum" {
  description = "KAI_QUORUM, N:R:W: replicas of a record, replies a read needs, acknowledgements a write needs. Fixed when the cluster is founded."
  type        = string
  default     = "3:2:2"
  validation {
    condition     = can(regex("^[1-9]:[1-9]:[1-9]$", var.quorum)) ? (tonumber(split(":", var.quorum)[1]) + tonumber(split(":", var.quorum)[2]) > tonumber(split(":", var.quorum)[0]) && tonumber(split(":", var.quorum)[2]) * 2 > tonumber(split(":", var.quorum)[0])) : false
    error_message = "quorum must be N:R:W with R+W > N and W > N/2, such as 3:2:2."
  }
}

variable "client_cidrs" {
  description = "Networks whose memcache clients may connect."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for c in var.client_cidrs : can(cidrnetmask(c))])
    error_message = "client_cidrs must be IPv4 networks such as 10.0.0.0/16."
  }
  validation {
    condition     = !contains(var.client_cidrs, "0.0.0.0/0")
    error_message = "client_cidrs must not be everybody: clients are not authenticated."
  }
  validation {
    condition     = length(var.client_cidrs) + length(var.client_security_group_ids) > 0
    error_message = "client_cidrs or client_security_group_ids must name somebody: otherwise no client can connect."
  }
}

variable "client_security_group_ids" {
  description = "Security groups whose members may connect as memcache clients."
  type        = list(string)
  default     = []
}

variable "admin_cidrs" {
  description = "Networks that reach the admin port (11214: console, metrics, /api) of the nodes. Whoever reaches it may drain and recover: operators and Prometheus only."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for c in var.admin_cidrs : can(cidrnetmask(c)) && c != "0.0.0.0/0"])
    error_message = "admin_cidrs must be IPv4 networks such as 10.0.0.0/16, and not everybody."
  }
}

variable "tls_certificate_arn" {
  description = "ACM certificate: the load balancer then takes TLS, on the same port, from clients. Between it and the nodes it is plain TCP. Null for plain TCP all the way."
  type        = string
  default     = null
}

variable "dns" {
  description = "Route 53 zone, and the name in it that is to point at the load balancer."
  type        = object({ zone_id = string, name = string })
  default     = null
}

variable "data_volume" {
  description = "EBS volume (gp3) for a node's data: GiB, IOPS, MB/s. Null for the first NVMe disk of the instance."
  type = object({
    size       = optional(number, 100)
    iops       = optional(number, 3000)
    throughput = optional(number, 125)
  })
  default = {}
  validation {
    condition     = var.data_volume == null ? true : var.data_volume.size >= 10 && var.data_volume.iops >= 3000 && var.data_volume.throughput >= 125
    error_message = "data_volume must have at least 10 GiB, and gp3 has at least 3000 IOPS and 125 MB/s."
  }
}

variable "ebs_kms_key_arn" {
  description = "KMS key for EBS; null for the account's own. The key's policy must let the service-linked role of autoscaling use it."
  type        = string
  default     = null
}

variable "backup" {
  description = "Snapshots: time between two (KAI_BACKUP_INTERVAL) and how many are kept. bucket is one that exists; null creates one, encrypted with a key of its own. kms_key_arn is the key of a bucket that exists, if it has one."
  type = object({
    bucket      = optional(string)
    kms_key_arn = optional(string)
    interval    = optional(string, "1h")
    keep        = optional(number, 24)
  })
  default = {}
  validation {
    condition     = can(regex("^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", var.backup.interval)) && var.backup.keep >= 1
    error_message = "backup.interval must be a duration such as 1h or 30m (0s: only when asked), backup.keep at least 1."
  }
  validation {
    condition     = !(var.backup.bucket == null && var.backup.kms_key_arn != null)
    error_message = "backup.kms_key_arn is for a bucket that exists: name it as backup.bucket. The one that is created gets a key of its own."
  }
}

variable "secrets" {
  description = "ARNs of secrets of Secrets Manager, by setting: KAI_GOSSIP_KEY encrypts gossip, KAI_BACKUP_KEY snapshots. Instances read them when they start; they are in no plan, state or user data."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for k, v in var.secrets : contains(["KAI_GOSSIP_KEY", "KAI_BACKUP_KEY"], k) && can(regex("^arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]+:secret:", v))])
    error_message = "secrets may have KAI_GOSSIP_KEY and KAI_BACKUP_KEY, each the ARN of a secret of Secrets Manager."
  }
}

variable "settings" {
  description = "Further KAI_ settings, as in Kai's README, such as KAI_CACHE_BYTES (else a quarter of the memory). Cluster-wide ones are fixed at founding."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for k, v in var.settings : can(regex("^(KAI|OTEL)_[A-Z_]+$", k)) && !can(regex("[\r\n]", v))])
    error_message = "settings must be KAI_ or OTEL_ variables, each value one line."
  }
  validation {
    condition = length(setintersection(keys(var.settings), ["KAI_CLUSTER", "KAI_DISCOVERY", "KAI_BOOTSTRAP_EXPECT", "KAI_QUORUM", "KAI_ZONE", "KAI_DRAIN_TIMEOUT",
    "KAI_BACKUP_URL", "KAI_BACKUP_INTERVAL", "KAI_BACKUP_KEEP", "KAI_BACKUP_KEY", "KAI_GOSSIP_KEY", "KAI_LISTEN", "KAI_PEER_LISTEN", "KAI_GOSSIP_LISTEN", "KAI_ADMIN_LISTEN", "KAI_DATA_DIR"])) == 0
    error_message = "settings must not have what the module sets: cluster, discovery, founders, quorum, zone, drain timeout, ports, data directory and backups have variables of their own, and keys go into secrets."
  }
}

variable "drain_timeout" {
  description = "Seconds that a node which is to end may take to hand over its partitions (KAI_DRAIN_TIMEOUT). A spot instance has two minutes at most."
  type        = number
  default     = 900
  validation {
    condition     = var.drain_timeout >= 60 && var.drain_timeout <= 7200
    error_message = "drain_timeout must be from 60 to 7200 seconds."
  }
}

variable "join_timeout" {
  description = "Seconds until an instance that is not ready to serve is given up, and an instance refresh rolled back."
  type        = number
  default     = 1800
  validation {
    condition     = var.join_timeout >= 300 && var.join_timeout <= 7200
    error_message = "join_timeout must be from 300 to 7200 seconds: autoscaling allows no more for a lifecycle hook."
  }
}

variable "scale_out_cpu" {
  description = "Mean CPU, in per cent, above which autoscaling adds nodes on demand; it never removes any by itself. Null for no such policy."
  type        = number
  default     = null
  validation {
    condition     = var.scale_out_cpu == null ? true : var.scale_out_cpu >= 20 && var.scale_out_cpu <= 90
    error_message = "scale_out_cpu must be from 20 to 90 per cent."
  }
}

variable "alarm_topic_arns" {
  description = "SNS topics that alarms go to. Without any there are alarms, but nobody hears them."
  type        = list(string)
  default     = []
}

variable "log_retention_days" {
  description = "Days that logs stay in CloudWatch."
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365], var.log_retention_days)
    error_message = "log_retention_days must be one that CloudWatch knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180 or 365."
  }
}

variable "s3_endpoint_route_table_ids" {
  description = "Route tables that get a gateway endpoint for S3, which costs nothing and keeps snapshots off the NAT. Empty where the VPC has one already."
  type        = list(string)
  default     = []
}

variable "ssm" {
  description = "Let operators in by Systems Manager's Session Manager. There is no SSH."
  type        = bool
  default     = true
}

variable "permissions_boundary" {
  description = "ARN of a permissions boundary for the instances' role."
  type        = string
  default     = null
}

variable "deletion_protection" {
  description = "Protect the load balancer, and a bucket with snapshots in it, from terraform destroy."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
