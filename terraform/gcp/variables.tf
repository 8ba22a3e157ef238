variable "name" {
  description = "Name of the cluster; of its resources, too."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", var.name))
    error_message = "name must be 2 to 20 lower-case letters, digits and hyphens, begin with a letter and not end with a hyphen: service accounts allow no more than 30, and the module adds to it."
  }
}

variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region."
  type        = string
}

variable "zones" {
  description = "Zones of the region that nodes are in: three for a cluster that outlives the loss of any one."
  type        = list(string)
  validation {
    condition     = length(var.zones) > 0 && length(var.zones) == length(distinct(var.zones)) && alltrue([for z in var.zones : startswith(z, "${var.region}-")])
    error_message = "zones must name at least one zone of the region, and each once."
  }
}

variable "network" {
  description = "Name or self link of the VPC network."
  type        = string
}

variable "subnetwork" {
  description = "Self link of the subnetwork. It needs Private Google Access, or Cloud NAT."
  type        = string
}

variable "image" {
  description = "Container image of Kai, with a tag or a digest: what `make image` builds, in a registry that the instances reach."
  type        = string
  validation {
    condition     = can(regex("(:[^:/]+|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a tag other than latest, or a digest: otherwise instances of one group may run different builds."
  }
}

variable "artifact_registry" {
  description = "The repository of Artifact Registry that the image is in: location and name; instances may pull from it. Null if it is elsewhere, and public."
  type        = object({ location = string, repository = string })
  default     = null
}

variable "size" {
  description = "How many nodes there are on demand."
  type        = number
  default     = 3
  validation {
    condition     = var.size == 0 || var.size + try(var.spot.size, 0) >= tonumber(split(":", var.quorum)[0])
    error_message = "size, with that of spot, must be at least N of quorum (N:R:W): with fewer nodes every record has fewer replicas. A cluster that was sealed may go to 0."
  }
}

variable "founders" {
  description = "How many nodes found the cluster together; null for all there are. It counts only once, so leave it alone afterwards, or set it to what it was."
  type        = number
  default     = null
  validation {
    condition     = var.founders == null ? true : var.founders >= 1
    error_message = "founders must be at least 1."
  }
}

variable "machine_type" {
  description = "Machine type."
  type        = string
  default     = "n2-standard-2"
}

variable "spot" {
  description = "A second group, of spot instances, in zones that `zones` has none of. As replicas spread over zones, at most one of three is then on spot. Null for none."
  type        = object({ zones = list(string), size = number })
  default     = null
  validation {
    condition     = var.spot == null ? true : length(var.spot.zones) > 0 && length(setintersection(var.spot.zones, var.zones)) == 0
    error_message = "spot.zones must name zones that are not in zones: two replicas of a record could be lost with one preemption otherwise."
  }
  validation {
    condition     = var.spot == null ? true : length(var.spot.zones) <= tonumber(split(":", var.quorum)[0]) - max([for i in range(2) : tonumber(split(":", var.quorum)[i + 1])]...)
    error_message = "spot.zones must be at most as many as replicas may be missing: N less the larger of R and W of quorum."
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
  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for c in var.client_cidrs : can(cidrnetmask(c)) && c != "0.0.0.0/0"])
    error_message = "client_cidrs must be IPv4 networks such as 10.0.0.0/16, at least one, and not everybody: clients are not authenticated."
  }
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

variable "data_disk" {
  description = "Disk for a node's data: type and GB."
  type = object({
    type = optional(string, "pd-ssd")
    size = optional(number, 100)
  })
  default = {}
  validation {
    condition     = var.data_disk.size >= 10
    error_message = "data_disk must have at least 10 GB."
  }
}

variable "kms_key" {
  description = "Cloud KMS key of disks and bucket; null for Google's own. The service agents of Compute Engine and Cloud Storage must be allowed to use it."
  type        = string
  default     = null
}

variable "backup" {
  description = "Snapshots: time between two (KAI_BACKUP_INTERVAL) and how many are kept. bucket is one that exists; null creates one."
  type = object({
    bucket   = optional(string)
    interval = optional(string, "1h")
    keep     = optional(number, 24)
  })
  default = {}
  validation {
    condition     = can(regex("^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", var.backup.interval)) && var.backup.keep >= 1
    error_message = "backup.interval must be a duration such as 1h or 30m (0s: only when asked), backup.keep at least 1."
  }
}

variable "secrets" {
  description = "Secrets of Secret Manager, by setting: KAI_GOSSIP_KEY encrypts gossip, KAI_BACKUP_KEY snapshots. Each is projects/P/secrets/S. Instances read them when they start; they are in no plan, state or metadata."
  type        = map(string)
  default     = {}
  validation {
    condition     = alltrue([for k, v in var.secrets : contains(["KAI_GOSSIP_KEY", "KAI_BACKUP_KEY"], k) && can(regex("^projects/[^/]+/secrets/[^/]+$", v))])
    error_message = "secrets may have KAI_GOSSIP_KEY and KAI_BACKUP_KEY, each projects/P/secrets/S."
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

variable "global_access" {
  description = "Let clients of other regions in the network connect."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Protect a bucket with snapshots in it from terraform destroy."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels of everything that has some."
  type        = map(string)
  default     = {}
}
