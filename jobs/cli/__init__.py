"""The command line: options and help of each verb. The work of a verb is in the file of its
name."""
