"""Choosing a detector: `detector: auto`, how candidates are ranked, anomalies to try them on."""
