"""Verbs that run as jobs on a remote cluster. The client of the cluster is in `cluster/runtime`."""
