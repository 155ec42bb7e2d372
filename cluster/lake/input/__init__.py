"""What a run reads: the snapshot of the input files, its splits, their rows."""
