"""Histories and windows, written to files that are read like an input."""
