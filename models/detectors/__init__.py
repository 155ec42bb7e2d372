"""One detector a file, with its `Config`, and the catalogue of them all."""
