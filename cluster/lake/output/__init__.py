"""What a run writes: shards, the journal, the Delta tables, their schemas."""
