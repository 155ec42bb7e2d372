"""Classes that several detectors inherit from. None can be chosen by name."""
