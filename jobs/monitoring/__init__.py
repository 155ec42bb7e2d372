"""Metrics of a live run and of the last nights, and where they are served."""
