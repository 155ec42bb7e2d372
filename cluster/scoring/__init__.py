"""What one worker does with a task of scoring. The run around it is `jobs/score.py`."""
