"""Guesses the roles of columns from a sample of rows, for `init`."""
