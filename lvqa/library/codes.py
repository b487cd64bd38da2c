"""The short codes of clips that the first pass of a library's search ranks: one bit for each number of a wide vector.

A vector less the mean of many is turned at random, so that no direction matters more than others, and of each number
its sign is kept (RaBitQ, Gao and Long 2024, as faiss has it): 456 bytes for 3,584 numbers, with an estimate of the
distance that is right on average. A vector of few numbers is kept as float16.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

CODES_FORMAT = 1
"""Raise this number when codes are made otherwise."""
MIN_WIDTH = 1024
"""From this width on signs are kept: of fewer numbers, they tell clips apart too badly."""

_Turns = tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
"""Of each turn the signs of all numbers, a rotation of the blocks, and one in each block."""

_BLOCK = 64
_SEED = 20


class ClipCodes:
    """Makes codes of vectors of one width, and ranks them."""

    def __init__(self, width: int) -> None:
        """Make the coder of a width."""
        import faiss

        self.width = width
        self._turns: _Turns = ()
        self._make: Callable[[], Any]
        if width < MIN_WIDTH:
            half = faiss.ScalarQuantizer.QT_fp16
            self._make = lambda: faiss.IndexScalarQuantizer(width, half, faiss.METRIC_L2)
        else:
            num_blocks = -(-width // _BLOCK)
            self._turns = _random_turns(num_blocks)
            self._make = lambda: faiss.IndexRaBitQ(num_blocks * _BLOCK, faiss.METRIC_L2)
        self.num_bytes = int(self._make_index().code_size)
        """How many bytes a code has."""

    def encode(self, vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Return the codes of vectors, (n, num_bytes) uint8.

        Args:
            vectors: (n, width).
            mean: (width,), what they are taken relative to.
        """
        codes: np.ndarray = self._make_index().sa_encode(self._turned(vectors, mean))
        return codes

    def load(self, codes: np.ndarray) -> Any:
        """Return codes, (n, num_bytes), in memory as `nearest` ranks them."""
        index = self._make_index()
        index.add_sa_codes(codes)
        return index

    def nearest(
        self, query: np.ndarray, mean: np.ndarray, loaded: Any, k: int, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the estimated distances and the rows of the codes nearest to a query, the nearest first.

        Args:
            query: (width,).
            mean: That of the codes.
            loaded: The codes, as `load` returns them.
            k: How many to return at most.
            mask: (n,) bool, which may be returned; by default all.
        """
        faiss: Any = importlib.import_module("faiss")  # its stubs know neither selectors of arrays nor parameters
        options = {}
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            options["params"] = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        distances, rows = loaded.search(self._turned(query[None], mean), min(k, loaded.ntotal), **options)
        return distances[0][rows[0] >= 0], rows[0][rows[0] >= 0]

    def _make_index(self) -> Any:
        """Return an empty index. Its centre is 0, since the mean is taken off before."""
        index = self._make()
        index.train(np.zeros((1, index.d), np.float32))
        return index

    def _turned(self, vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
        rows: np.ndarray = vectors.astype(np.float32) - mean
        if not self._turns:
            return rows
        rows = np.pad(rows, ((0, 0), (0, -self.width % _BLOCK)))
        for signs, outer, inner in self._turns:
            blocks = (rows * signs).reshape(len(rows), len(outer), _BLOCK)
            rows = (np.matmul(outer, blocks) @ inner).reshape(len(rows), -1)
        return np.ascontiguousarray(rows)


def use_one_thread() -> None:
    """Have faiss compute in the calling thread alone.

    Each thread that calls it has threads of its own, as many as there are cores: 273 where 16 threads searched.
    """
    import faiss

    faiss.omp_set_num_threads(1)


@functools.lru_cache(8)
def _random_turns(num_blocks: int) -> _Turns:
    """Return two random rotations, of blocks and in blocks: 30 times cheaper than one of whole vectors, and as even."""
    rng = np.random.default_rng(_SEED)
    return tuple(
        (
            rng.choice(np.array([-1, 1], np.float32), num_blocks * _BLOCK),
            _rotation(rng, num_blocks),
            _rotation(rng, _BLOCK),
        )
        for _ in range(2)
    )


def _rotation(rng: np.random.Generator, size: int) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    rotation: np.ndarray = (q * np.sign(np.diag(r))).astype(np.float32)  # the same wherever it is made
    return rotation
