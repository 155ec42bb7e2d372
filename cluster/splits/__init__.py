"""Rows of a split, admitted and cut to chunks, and the engines that run them."""
