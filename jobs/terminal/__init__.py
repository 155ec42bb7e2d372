"""What a person sees in a terminal: steps, progress, tables, printable text."""
