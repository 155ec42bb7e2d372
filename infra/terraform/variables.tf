variable "name" {
  description = "Prefix of the names of all that is made."
  type        = string
  default     = "anomaray"
}

variable "region" {
  description = "AWS region of the bucket and the cluster; the same AWS_REGION as in infra/kuberay/components/site."
  type        = string
}

variable "bucket" {
  description = "Name of the lake's bucket, which is made here."
  type        = string
}

variable "input_prefixes" {
  description = "Prefixes of the bucket that hold the logs; every role but the reporter reads them, none writes."
  type        = list(string)
  default     = ["input"]
}

variable "output_prefix" {
  description = "Prefix of all watches' output.uri: s3://<bucket>/<output_prefix>/<watch>."
  type        = string
  default     = "anomaray"
}

variable "export_prefix" {
  description = "Prefix to which the reporter exports flags as plain Parquet."
  type        = string
  default     = "published"
}

variable "orphan_days" {
  description = "Days after which checkpoints and journals of runs go, and replaced versions of all objects."
  type        = number
  default     = 30
  validation {
    condition     = var.orphan_days >= 8
    error_message = "A run may be resumed for a week: expected 8 days or more."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the cluster, in two zones or more; their range is the site's API address."
  type        = list(string)
}

variable "kubernetes_version" {
  description = "Version of EKS."
  type        = string
  default     = "1.34"
}

variable "namespace" {
  description = "Kubernetes namespace of the service accounts."
  type        = string
  default     = "anomaray"
}

variable "cpu_instance_types" {
  description = "Instance types of CPU workers: 8 vCPUs and 32 GiB, as the pods ask for."
  type        = list(string)
  default     = ["m7i.2xlarge", "m6i.2xlarge"]
}

variable "gpu_instance_types" {
  description = "Instance types of GPU workers, several, so that spot finds one: 8 vCPUs, 32 GiB, one GPU."
  type        = list(string)
  default     = ["g6.2xlarge", "g5.2xlarge"]
}

variable "most_workers" {
  description = "Most nodes of each group of workers: the bound of a night's bill."
  type        = number
  default     = 16
}

variable "watches" {
  description = "Folders below output_prefix, one a watch: their scratch and journals go after orphan_days."
  type        = list(string)
  default     = ["flows"]
}
