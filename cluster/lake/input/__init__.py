"""The files of a day: their snapshot, its splits, their rows. Writes nothing."""
