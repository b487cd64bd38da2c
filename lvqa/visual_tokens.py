"""The visual tokens of one video: every frame pair is decoded and encoded once, and kept for all stages.

A pair is named by its two grid frames; the pair (k, k) is one frame, and is decoded and counted as one. The vision
tower attends only inside a pair, so its tokens are the same in every prompt. What does not fit into memory is read from
the disk again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, compress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np

from lvqa.concurrency import check_stop
from lvqa.image import read_image
from lvqa.models.cache import ByteLRUCache
from lvqa.pairs import Pair
from lvqa.records import Counts, Video
from lvqa.token_file import TokenFile
from lvqa.video import DecodeOptions, FrameGrid, PixelReader

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models import Model
    from lvqa.models.prompt import ClipTokens

TOKENS_FORMAT = 3
"""The format number of token files. Raise it when their layout changes, or the computation that makes the tokens."""


def image_tokens(picture: Path | Any, model: Model, *, max_pixels: int | None = None) -> ClipTokens:
    """Return a picture's visual tokens; see `images_tokens`."""
    return images_tokens([picture], model, max_pixels=max_pixels)[0]


def images_tokens(pictures: Sequence[Path | Any], model: Model, *, max_pixels: int | None = None) -> list[ClipTokens]:
    """Return the visual tokens of pictures: each is a pair with the same picture twice, no larger than a frame.

    Args:
        pictures: Their files, or what else `read_image` takes. Those that become equally large are encoded together.
        model: The model that encodes them.
        max_pixels: The limit on the size of one; None means the model's own limit on a frame.

    Raises:
        LvqaError: A file can't be read as a picture.
    """
    from lvqa.models.prompt import ClipTokens

    limit = max_pixels or model.max_pixels
    of_size: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
    for i, picture in enumerate(pictures):
        pixels = read_image(picture, size_of=lambda height, width: model.frame_size(height, width, max_pixels=limit))
        of_size.setdefault(pixels.shape, {})[i] = pixels
    clips: dict[int, ClipTokens] = {}
    for shape, group in of_size.items():
        encoded = model.encode_pairs(np.stack([np.stack([pixels, pixels]) for pixels in group.values()]))
        grid = model.token_grid(*shape[:2])
        # A row of a batch would keep the whole batch alive.
        rows = [encoded] if len(group) == 1 else [row[None].clone() for row in encoded]
        clips |= {i: ClipTokens(row, *grid, is_image=True) for i, row in zip(group, rows, strict=True)}
    return [clips[i] for i in range(len(pictures))]


class VisualTokens:
    """A bounded in-memory store of one video's pairs, filled on demand, in the memory of the model's device."""

    def __init__(
        self,
        video: Video,
        grid: FrameGrid,
        model: Model,
        *,
        max_pixels: int | None = None,
        decoder: str = "pyav",
        threads: int | None = None,
        stall_seconds: float = 30.0,
        memory_bytes: int = 2 << 30,
        file: TokenFile | None = None,
        on_growth: Callable[[], int] = lambda: 0,
    ) -> None:
        """Prepare an empty store; nothing is decoded yet.

        Args:
            video: The video.
            grid: Its frames that can be used.
            model: The model that encodes the pairs.
            max_pixels: The limit on a frame's size; None means the model's own.
            decoder: The name of the decoder.
            threads: How many threads decode; None leaves it to the decoder.
            stall_seconds: How long the decoder may take for one step.
            memory_bytes: How much memory the pairs may take.
            file: Keeps the pairs for other processes.
            on_growth: Called when a pair has been added, as `ByteLRUCache` calls it.
        """
        self.video, self.grid = video, grid
        self.height, self.width = model.frame_size(video.height, video.width, max_pixels=max_pixels or model.max_pixels)
        self.substituted: set[int] = set()
        """The grid frames read so far that are damaged: another frame stands in for each of them."""
        self.on_pairs: Callable[[int], None] = lambda _: None
        """Called with a number of pairs as they become ready."""
        self._model = model
        self._decode_options = DecodeOptions(decoder, threads, stall_seconds)
        self._memory_bytes = memory_bytes
        self._cache: ByteLRUCache[Pair, Tensor] = ByteLRUCache(memory_bytes, on_growth=on_growth)
        self._arena: Tensor | None = None
        """One piece of memory for the tokens of all pairs, (pairs, rows * cols, width)."""
        self._file = file
        self._ahead: PixelReader | None = None

    @property
    def nbytes(self) -> int:
        """How many bytes of memory the pairs take."""
        return self._cache.nbytes

    @property
    def counts(self) -> Counts:
        """The work so far, decoding included, as the model counts it."""
        return self._model.counts

    def release_file(self) -> None:
        """Let others remove the file if they need its room, until it is used again."""
        if self._file is not None:
            self._file.close()

    def keep(self, tokens: Mapping[Pair, Tensor]) -> None:
        """Put these pairs' tokens, (rows * cols, dim) each, into the store, as far as the memory goes."""
        for pair, pair_tokens in tokens.items():
            if self._cache.get(pair) is None:
                self._cache[pair] = self._copy(pair, pair_tokens)

    def _copy(self, pair: Pair, tokens: Tensor) -> Tensor:
        """Return a copy: a row of a batch would keep the whole batch alive.

        On a CPU with memory for all pairs, it is a row of one piece of memory: thousands of small pieces between
        short-lived ones leave the heap full of holes, and a process would grow with the video by several times their
        size.
        """
        slot = self._slot(pair)
        if tokens.device.type != "cpu" or slot is None or self.grid.num_pairs * tokens.nbytes > self._memory_bytes:
            return tokens.clone()
        if self._arena is None:
            self._arena = tokens.new_empty((self.grid.num_pairs, *tokens.shape))
        return self._arena[slot].copy_(tokens)

    def stream(self, groups: Sequence[Sequence[Pair]]) -> Iterator[list[Tensor]]:
        """Yield for each group its pairs' tokens, (rows * cols, dim) each, decoding and encoding on the way.

        Args:
            groups: Groups of pairs, ascending in time, so that the video is decoded in one pass.
        """
        missing = self._missing(groups)
        pixels = self._pixels_of(missing)
        at_once = self._model.pairs_at_once(self.height, self.width)
        try:
            for batch in _batches(groups, at_once):
                check_stop()
                needed = list(dict.fromkeys(chain.from_iterable(groups[batch])))
                new = list(dict.fromkeys(chain.from_iterable(missing[batch])))
                ready = {pair: tokens for pair in needed if (tokens := self._load(pair)) is not None}
                # Cached tokens may have been dropped since; those that a group needs are computed again.
                late = [pair for pair in needed if pair not in ready and pair not in new]
                ready.update(self._encode([pair for pair in new if pair not in ready], pixels))
                if late:
                    ready.update(self._encode(late, self._pixels(sorted({k for pair in late for k in pair}))))
                self.keep(ready)
                for group in groups[batch]:
                    self.on_pairs(len(group))
                    yield [ready[pair] for pair in group]
        finally:
            pixels.close()

    def decode_ahead(self, groups: Sequence[Sequence[Pair]], stop: Event) -> None:
        """Decode, until `stop` is set, what `stream` needs first if these groups are the next ones.

        Another thread may do it, if no other method is called meanwhile.
        """
        ahead = self._pixels_of(self._missing(groups))
        ahead.read_ahead(stop)
        self._ahead = ahead

    def clips(self, groups: Sequence[Sequence[Pair]]) -> Iterator[ClipTokens]:
        """Yield each group as one clip, whose seconds count from its start; groups are those of `stream`."""
        for group, tokens in zip(groups, self.stream(groups), strict=True):
            yield self.clip_tokens(group, tokens, start_seconds=self.grid.seconds_of(group[0][0]))

    def clip_tokens(
        self, pairs: Sequence[Pair], tokens: Sequence[Tensor], *, start_seconds: float | None
    ) -> ClipTokens:
        """Return pairs and their tokens as one clip.

        Args:
            pairs: The pairs in order.
            tokens: The tokens of each pair, as `stream` yields them.
            start_seconds: The time in the video that the clip's seconds count from; None: the clip has no seconds, and
                its pairs follow evenly.
        """
        import torch

        from lvqa.models.prompt import ClipTokens

        def since_start(frame: int) -> float:
            return self.grid.seconds_of(frame) - (start_seconds or 0.0)

        seconds = tuple((since_start(a), since_start(b)) for a, b in pairs) if start_seconds is not None else ()
        rows, cols = self._model.token_grid(self.height, self.width)
        return ClipTokens(torch.stack(list(tokens)), rows, cols, seconds, source=(tuple(pairs), seconds))

    def _missing(self, groups: Sequence[Sequence[Pair]]) -> list[list[Pair]]:
        """Return the pairs of each group that are not known yet."""
        return [[pair for pair in group if not self._is_known(pair)] for group in groups]

    def _pixels_of(self, groups: Sequence[Sequence[Pair]]) -> PixelReader:
        """Return what reads the frames of these groups, with those that were decoded ahead."""
        frames = sorted({frame for group in groups for pair in group for frame in pair})
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.frames == frames:
            return ahead
        if ahead is not None:
            ahead.close()
        return self._pixels(frames)

    def _pixels(self, frames: Sequence[int]) -> PixelReader:
        times = self.grid.times_seconds[list(frames)]
        size = self.height, self.width
        return PixelReader(self.video, frames, times, size=size, options=self._decode_options, on_batch=self._count)

    def _count(self, frames: Sequence[int], substituted: np.ndarray) -> None:
        self.counts.frames_decoded += len(frames)
        self.substituted.update(compress(frames, substituted))

    def _encode(self, pairs: Sequence[Pair], pixels: PixelReader) -> dict[Pair, Tensor]:
        import torch

        if not pairs:
            return {}
        stack = np.stack([np.stack([pixels.frame(frame) for frame in pair]) for pair in pairs])
        encoded = self._model.encode_pairs(stack)
        if self._file is not None and self._file.has_room(encoded[0].nbytes):
            rows = encoded.cpu().flatten(1).view(torch.uint8).numpy()
            data = {
                self._number(pair): row.tobytes() + self._flags(pair) for pair, row in zip(pairs, rows, strict=True)
            }
            self._file.write(data)
        return dict(zip(pairs, encoded.unbind(0), strict=True))

    def _is_known(self, pair: Pair) -> bool:
        return pair in self._cache or (self._file is not None and self._file.may_contain(self._number(pair)))

    def _load(self, pair: Pair) -> Tensor | None:
        """Return a pair's tokens from memory or from the file, or None."""
        from lvqa.models.devices import to_device

        cached = self._cache.get(pair)
        if cached is not None:
            return cached
        loaded = self._load_from_file(pair)
        return None if loaded is None else to_device(loaded, self._model.device)

    def _load_from_file(self, pair: Pair) -> Tensor | None:
        """Return (rows * cols, width) tokens on the CPU, or None if the file does not have this pair."""
        import torch

        data = None if self._file is None else self._file.read(self._number(pair))
        if data is None:
            return None
        flags = data.pop()
        self.substituted.update(frame for bit, frame in enumerate(pair) if flags >> bit & 1)
        cells = math.prod(self._model.token_grid(self.height, self.width))
        return torch.frombuffer(data, dtype=self._model.dtype).view(cells, -1)

    def _flags(self, pair: Pair) -> bytes:
        """Return the byte behind a pair's tokens in the file: a bit for each frame, set where another one stands in."""
        return bytes([sum((frame in self.substituted) << bit for bit, frame in enumerate(pair))])

    def _number(self, pair: Pair) -> int:
        """Return what the file knows a pair by: which of the grid's pairs it is, or a number above theirs."""
        slot = self._slot(pair)
        return self.grid.num_pairs + pair[0] * self.grid.num_frames + pair[1] if slot is None else slot

    def _slot(self, pair: Pair) -> int | None:
        """Return which of the grid's pairs this is; None for another one."""
        pair_id = int(self.grid.pair_ids[pair[0]])
        return pair_id if self.grid.pair(pair_id) == pair else None


def _batches(groups: Sequence[Sequence[Pair]], max_pairs: int) -> Iterator[slice]:
    """Yield runs of groups that have so many pairs together at most, or a single group with more."""
    first, num_pairs = 0, 0
    for i, group in enumerate(groups):
        if i > first and num_pairs + len(group) > max_pairs:
            yield slice(first, i)
            first, num_pairs = i, 0
        num_pairs += len(group)
    if first < len(groups):
        yield slice(first, len(groups))
