"""Batches of a bounded number of tokens, which become smaller when memory runs out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lvqa.concurrency import check_stop
from lvqa.models.devices import to_device
from lvqa.records import LvqaError

KEPT_TOKEN_COST = 1 / 8
"""A token of a prefix or of a reply costs this part of what a new token costs: it has keys and values, no states."""


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out: Apple's GPUs and the CPU have no class of their own for it."""
    text = str(error)
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "out of memory" in text or "can't allocate memory" in text


class TokenBudget:
    """A bound on the tokens of a batch. It is halved when memory runs out, and stays so."""

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"a batch must hold at least one token, got {tokens}")
        self.tokens = tokens

    def run(self, sizes: Sequence[int], compute: Callable[[list[int]], Tensor]) -> Tensor:
        """Compute all items in batches of similar sizes.

        Sizes [5, 900, 5, 5] under 1000 tokens are computed as [0, 2, 3] and [1]: an item costs what the longest does.

        Args:
            sizes: The number of tokens of each item.
            compute: Returns a row for each item of a batch, which is given by the items' indices.

        Returns:
            (n, ...) rows in the items' order.

        Raises:
            LvqaError: There is not even memory for one item alone.
        """
        waiting = sorted(range(len(sizes)), key=sizes.__getitem__)
        order = list(waiting)
        rows: list[Tensor] = []
        while waiting:
            check_stop()
            batch = self._first_batch(waiting, sizes)
            try:
                rows.append(compute(batch))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
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

    def run_by_shape(
        self,
        shapes: Sequence[tuple[int, ...]],
        compute: Callable[[list[int]], Tensor],
        *,
        token_costs: tuple[float, ...] = (1,),
    ) -> list[Tensor]:
        """Compute all items in batches of one shape, so that nothing is padded.

        Args:
            shapes: The lengths in tokens of each item's pieces, such as its prefix and its suffix.
            compute: Returns a row for each item of a batch, which is given by the items' indices.
            token_costs: What a token of each piece costs.

        Returns:
            The rows in the items' order.
        """
        items_of_shape: dict[tuple[int, ...], list[int]] = {}
        for i, shape in enumerate(shapes):
            items_of_shape.setdefault(shape, []).append(i)
        rows: dict[int, Tensor] = {}
        for shape, items in items_of_shape.items():

            def compute_items(batch: list[int], items: list[int] = items) -> Tensor:
                return compute([items[i] for i in batch])

            size = math.ceil(sum(cost * length for cost, length in zip(token_costs, shape, strict=True)))
            rows.update(zip(items, self.run([size] * len(items), compute_items), strict=True))
        return [rows[i] for i in range(len(shapes))]

    def _first_batch(self, waiting: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Return the longest start of `waiting` that fits, at least one item; sizes rise along it.

        Items of one size are shared out evenly: 16 of which 15 fit are 8 and 8.
        """
        count = 1
        while count < len(waiting) and (count + 1) * sizes[waiting[count]] <= self.tokens:
            count += 1
        if sizes[waiting[0]] == sizes[waiting[-1]]:
            count = math.ceil(len(waiting) / math.ceil(len(waiting) / count))
        return list(waiting[:count])
