"""The spec of a watch: reading the YAML file, checking every key, errors with line numbers.

Checks against data belong to `jobs/check.py`.
"""
