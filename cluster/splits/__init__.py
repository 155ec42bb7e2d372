"""Rows of a split, admitted and cut to chunks, and the stream of splits through actors."""
