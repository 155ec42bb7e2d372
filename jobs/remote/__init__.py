"""Verbs as jobs on a remote cluster. The protocol of the cluster is in `cluster/runtime`."""
