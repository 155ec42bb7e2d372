"""Parts that several detectors share: inputs as a matrix, layers, descriptions of signals.

No detector is here, and nothing here trains.
"""
