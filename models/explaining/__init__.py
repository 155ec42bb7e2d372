"""Turns contributions into reasons and pictures. The detectors compute the contributions."""
