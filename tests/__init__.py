"""Tests: one file a module; contracts; faults; browser."""
