"""How much is kept in a device's memory beside the weights: one number, shared by all that is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvqa.control_group import read_limits
from lvqa.models import Model

if TYPE_CHECKING:
    import torch

PART_OF_FREE = 0.9
"""So much of what is free is used: the allocator rounds up, and leaves gaps."""
PART_OF_HOST = 0.25
"""So much of a host's memory is used, which other processes share."""
MIN_BYTES = 64 << 20
"""So much is kept even where nothing is free: a batch that finds no room becomes smaller."""
MIN_BATCH_TOKENS = 1024
"""A batch holds so many tokens even where memory is short: a clip alone has about as many."""
MEMORY_FILES = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""The files of a control group's limit and use, of the second version and of the first."""


@dataclass(frozen=True, slots=True)
class MemoryShares:
    """How many bytes each kind of what is kept of a video may take. Together they are the bound on all videos."""

    total: int
    """What all open videos may take together."""

    @classmethod
    def of(cls, model: Model, memory_mib: int | None) -> MemoryShares:
        """Return the shares of `model.memory_mib`; null stands for what was free when the model was loaded."""
        return cls(model.memory_bytes if memory_mib is None else memory_mib << 20)

    @property
    def tokens(self) -> int:
        """The share of visual tokens."""
        return self.total // 3

    @property
    def clips(self) -> int:
        """The share of the keys and values of clips."""
        return self.total // 2

    @property
    def answers(self) -> int:
        """The share of the keys and values of answers' frames."""
        return self.total - self.tokens - self.clips


def default_bytes(free: int, *, batch: int, is_host: bool) -> int:
    """Return how many bytes are kept where nothing else is asked for.

    Args:
        free: The bytes that are free beside the weights.
        batch: The bytes that a batch takes.
        is_host: Whether it is the memory of the host.
    """
    part = PART_OF_HOST if is_host else PART_OF_FREE
    return max(MIN_BYTES, int(part * free) - (0 if is_host else batch))


def measured_bytes(device: torch.device, library: Any, tokens: int, free: int) -> int:
    """Return `default_bytes` of a device, on which a model of the library's has just been loaded.

    Args:
        device: The device.
        library: The library's model.
        tokens: How many tokens a batch holds.
        free: The bytes that are free beside the weights.
    """
    batch = batch_bytes(library.config.text_config, tokens, itemsize=library.dtype.itemsize)
    return default_bytes(free, batch=batch, is_host=device.type not in ("cuda", "mps"))


def batch_tokens(device: torch.device) -> int:
    """Return how many tokens a batch holds where `model.max_batch_tokens` is not set and memory is plenty.

    A GPU of any kind is kept busy by large batches; on a CPU they leave the cache, which costs the embedded model a
    third.
    """
    return 4096 if device.type == "cpu" else 16384


def default_batch_tokens(device: torch.device, library: Any, free: int) -> int:
    """Return how many tokens a batch holds where `model.max_batch_tokens` is not set: fewer if few bytes are free.

    Otherwise the number does not follow what is free: it would change the last bits of results between machines. Where
    it does, a batch would have run out of memory, and have become smaller too.
    """
    config, itemsize = library.config.text_config, library.dtype.itemsize
    return fitting_tokens(batch_tokens(device), free, config, itemsize=itemsize)


def fitting_tokens(tokens: int, free: int, config: Any, *, itemsize: int) -> int:
    """Return a batch's tokens, halved until it takes at most half of the free bytes; see `batch_bytes`."""
    while tokens > MIN_BATCH_TOKENS and 2 * batch_bytes(config, tokens, itemsize=itemsize) > free:
        tokens //= 2
    return tokens


def batch_bytes(config: Any, tokens: int, *, itemsize: int) -> int:
    """Return how many bytes a layer takes at most for a batch: inside the MLP, and for states, queries, keys, values.

    Args:
        config: The config of the library's decoder.
        tokens: How many tokens the batch holds.
        itemsize: The bytes of a number.
    """
    return int(tokens * itemsize * (3 * config.intermediate_size + 8 * config.hidden_size))


def free_bytes(device: torch.device, library: Any) -> int:
    """Return how many bytes of a device's memory are free: of an Apple GPU what it recommends, less the weights."""
    import torch

    from lvqa.models.quantisation import weight_bytes

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch's own allocator
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - sum(map(weight_bytes, library.parameters()))
    return min([_available_bytes(), *_left_to_group()])


def _available_bytes() -> int:
    """Return how many bytes of the host's memory are free, or a machine of 8 GiB where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable"):
                return int(line.split()[1]) << 10
    return 8 << 30


def _left_to_group() -> Iterator[int]:
    """Yield what the limits of this process's control groups leave."""
    for limit, used in read_limits("memory", MEMORY_FILES):
        with suppress(ValueError):  # a limit may be the word max
            yield int(limit) - int(used)
