"""Parquet and Delta on a folder or S3. No torch, no Ray."""
