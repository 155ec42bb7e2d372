"""The parts of a training: plan, options, steps, warm start. The verb is in `jobs/train.py`."""
