"""Batches by tokens, not by items, with a way out when memory runs short."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lvqa.models.devices import to_device
from lvqa.records import LvqaError


class TokenBudget:
    """How many tokens one batch may hold. Halved when memory runs out, and kept so."""

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"a batch must hold at least one token, got {tokens}")
        self.tokens = tokens

    def run(self, sizes: Sequence[int], work: Callable[[list[int]], Tensor]) -> Tensor:
        """(n, ...) the rows of `work` in the items' order; it is called with the indices of items of similar size.

        Sizes [5, 900, 5, 5] under 1000 tokens are worked on as [0, 2, 3] and [1]: an item costs what the longest does.
        """
        waiting = sorted(range(len(sizes)), key=sizes.__getitem__)
        order = list(waiting)
        rows: list[Tensor] = []
        while waiting:
            batch = self._first_batch(waiting, sizes)
            try:
                rows.append(work(batch))
            except (torch.OutOfMemoryError, MemoryError) as error:
                size = sizes[batch[-1]]
                if len(batch) == 1:
                    raise LvqaError(
                        f"out of memory on one item of {size} tokens: show fewer or smaller frames"
                    ) from error
                self.tokens = len(batch) // 2 * size
            else:
                waiting = waiting[len(batch) :]
        joined = torch.cat(rows)
        return joined if order == sorted(order) else joined[to_device(torch.tensor(order).argsort(), joined.device)]

    def run_alike(
        self,
        shapes: Sequence[tuple[int, ...]],
        work: Callable[[list[int]], Tensor],
        *,
        weights: tuple[float, ...] = (1,),
    ) -> list[Tensor]:
        """The rows of `work` in the items' order; items of one shape alone come together, so that nothing is padded.

        A shape is the lengths of an item's parts; `weights` are what a token of each part costs.
        """
        places: dict[tuple[int, ...], list[int]] = {}
        for place, shape in enumerate(shapes):
            places.setdefault(shape, []).append(place)
        rows: dict[int, Tensor] = {}
        for shape, alike in places.items():

            def work_on(batch: list[int], alike: list[int] = alike) -> Tensor:
                return work([alike[place] for place in batch])

            size = math.ceil(sum(weight * length for weight, length in zip(weights, shape, strict=True)))
            rows.update(zip(alike, self.run([size] * len(alike), work_on), strict=True))
        return [rows[place] for place in range(len(shapes))]

    def _first_batch(self, waiting: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """The longest start of `waiting` that fits, at least one item; sizes rise along it.

        Items of one size are shared out evenly: 16 of which 15 fit are 8 and 8.
        """
        count = 1
        while count < len(waiting) and (count + 1) * sizes[waiting[count]] <= self.tokens:
            count += 1
        if sizes[waiting[0]] == sizes[waiting[-1]]:
            count = math.ceil(len(waiting) / math.ceil(len(waiting) / count))
        return list(waiting[:count])
