"""The training of the embedded model: `python scripts/tiny/train.py` runs it, README.md describes it."""
