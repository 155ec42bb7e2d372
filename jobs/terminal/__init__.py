"""Output for people: progress, log lines, warnings, text that is safe to print.

The tables of a verb belong to the file of the verb.
"""
