"""What is learned: encoders, detectors, thresholds, bundles. Nothing here knows Ray or a URI."""
