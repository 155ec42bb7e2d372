"""Abstract classes that several detectors inherit from. A spec cannot name one."""
