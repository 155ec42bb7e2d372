"""Cells of Arrow to raw numbers and codes, one file a kind of cell. Nothing here is fitted."""
