"""Runs of a retrieval dataset: what is compared, what came out. `retrieval.run` searches; the rest needs no model."""
