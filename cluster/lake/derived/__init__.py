"""Rows made from the input once a day: histories and windows."""
