"""Types of columns: one for files that differ, and casts that report what they change."""
