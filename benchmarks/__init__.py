"""Measurements of the running service. Each module is a command: `python -m benchmarks.classify --help`."""
