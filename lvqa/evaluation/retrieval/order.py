"""The order of candidates by their scores, in which no place in a file is an advantage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def order_of(scores: Sequence[np.ndarray], query_id: str, names: Sequence[str]) -> np.ndarray:
    """Return the candidates, best first.

    Candidates with equal scores come in an order that is random and always the same: the published files name the
    right candidate first, so that their order would favour it.

    Args:
        scores: (n,) arrays; the first decides, among equals the next one. NaN comes last.
        query_id: The query, which decides with the names how equals are ordered.
        names: The names of the candidates.

    Returns:
        (n,) indices of the candidates.
    """
    keys = [np.where(np.isnan(score), np.inf, -score) for score in scores]
    order = np.lexsort(keys[::-1])
    same = np.all([key[order[1:]] == key[order[:-1]] for key in keys], axis=0)
    for start, end in _runs(same):
        order[start:end] = sorted(order[start:end], key=lambda i: _lot(query_id, names[i]))
    return np.asarray(order)


def _runs(same: np.ndarray) -> list[tuple[int, int]]:
    """Return where runs of equal neighbours start and end, given which ones equal the next."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    return [(int(start), int(end) + 1) for start, end in edges.reshape(-1, 2)]


def _lot(query_id: str, name: str) -> bytes:
    return hashlib.sha256(f"{query_id}\n{name}".encode()).digest()
