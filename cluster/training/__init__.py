"""Training over the cluster: encoder fit, dataset, DDP, checkpoints, calibration, trials."""
