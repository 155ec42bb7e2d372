"""Metrics of a running verb and of a watch, for Prometheus. Webhooks are in `alerting`."""
