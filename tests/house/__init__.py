"""The house, measured and drawn from its imports: `python -m tests.house`, `make docs`."""
