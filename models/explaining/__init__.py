"""Contributions to reasons and pictures. Contributions themselves are computed by the detectors."""
