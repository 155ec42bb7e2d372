"""Decodes Arrow cells to raw numbers and codes, one file per kind of cell. Nothing is fitted."""
