"""One detector a file, with its `Config`, and the catalogue of them all.

Parts of networks that several detectors share are in `models.layers`.
"""
