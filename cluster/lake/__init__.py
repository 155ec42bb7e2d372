"""Parquet and Delta on a folder or a bucket: no torch, no Ray."""
