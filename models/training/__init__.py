"""The training loop, its options and its memory. The workers that run it with DDP are in
`cluster/training`."""
