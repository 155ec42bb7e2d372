"""Roles of columns guessed from data, for `init`."""
