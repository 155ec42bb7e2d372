"""Bundles, thresholds and champions of a watch, and their signatures."""
