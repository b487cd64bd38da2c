"""The command line: each command in a module of its own, and what they share in `main.py` and `terminal.py`."""
