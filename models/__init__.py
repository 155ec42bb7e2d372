"""What is learned: columns, encoders, detectors, thresholds, bundles. No Ray, no URIs."""
