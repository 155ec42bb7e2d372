"""Parts of a training run: its plan, options, steps, warm start. The verb is `jobs/train.py`."""
