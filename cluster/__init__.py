"""Where it runs: Ray, storage, splits, commits."""
