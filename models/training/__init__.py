"""The training loop of one process, its options and its memory. DDP is in `cluster/training`."""
