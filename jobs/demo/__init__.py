"""The demo: the generator of its data, and its run.

Product code does not belong here. Only the verbs and tests import it.
"""
