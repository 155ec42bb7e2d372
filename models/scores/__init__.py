"""Scores, and what is made of them: thresholds, severity, quality, drift. No rows or detectors."""
