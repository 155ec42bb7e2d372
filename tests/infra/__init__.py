"""What is deployed: manifests, image, Terraform, DAG; each checked as its own tool reads it."""
