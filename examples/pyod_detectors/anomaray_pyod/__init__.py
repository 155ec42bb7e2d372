"""PyOD's detectors for Anomaray: the detector, and how models become arrays and back."""
