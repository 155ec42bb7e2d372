"""Which detector to choose: `auto`, the ranking, synthetic anomalies."""
