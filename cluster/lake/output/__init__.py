"""Everything that a run writes: shards, Delta tables, their schemas, the journal."""
