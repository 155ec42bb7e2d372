"""Parts of a scoring run: its plan, books, gates and journal segments. The run is
`jobs/score.py`."""
