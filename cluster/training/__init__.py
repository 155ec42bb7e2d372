"""Training, in this process or over a cluster: encoder fit, rows, epochs, checkpoints, calibration,
trials. The loop itself is in `models/training`."""
