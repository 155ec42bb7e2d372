"""Bundles, thresholds and champions of a watch, with signatures. Opens no bundle."""
