"""What is learned: encoder, detectors, thresholds and bundles. Torch and Arrow; no Ray, no URIs."""
