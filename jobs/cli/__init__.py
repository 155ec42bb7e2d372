"""The command line: the options and the help of each verb.

The work of a verb belongs to the file of its name in `jobs/`.
"""
