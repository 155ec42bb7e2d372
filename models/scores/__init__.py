"""What becomes of scores: threshold, severity, sketches, quality, drift. No rows and no
detectors."""
