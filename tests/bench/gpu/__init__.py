"""What is measured on a machine with a GPU, in minutes: `python -m tests.bench.gpu`."""
