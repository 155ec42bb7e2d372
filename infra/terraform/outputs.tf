output "role_arns" {
  description = "Role by service account: for infra/kuberay/components/site."
  value       = { for role, made in aws_iam_role.run : role => made.arn }
}

output "cluster_name" {
  description = "For `aws eks update-kubeconfig --name`."
  value       = aws_eks_cluster.this.name
}

output "lake" {
  description = "URIs of the lake: logs, outputs of the watches, exports."
  value = {
    input  = [for prefix in var.input_prefixes : "s3://${var.bucket}/${prefix}"]
    output = "s3://${var.bucket}/${var.output_prefix}"
    export = "s3://${var.bucket}/${var.export_prefix}"
  }
}
