"""The visual tokens of one video: every frame pair is decoded and encoded once, and kept for all stages.

A pair is named by its two grid frames, (2p, 2p + 1). A frame that is shown without its partner is the pair (k, k), as
Qwen encodes an image. The vision tower attends only inside a pair, so its tokens are the same in every prompt.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.image import read_image
from lvqa.models.held import Held
from lvqa.records import Clip, Counts, Video
from lvqa.video import FrameGrid, read_frames

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models import Model
    from lvqa.models.prompt import ClipTokens

Pair = tuple[int, int]


def pairs_of_clip(clip: Clip, grid: FrameGrid) -> list[Pair]:
    """The pairs that lie in a clip; the last pair of an odd grid shows its frame twice."""
    first = grid.frame_at(clip.start_seconds)
    firsts = takewhile(lambda k: grid.seconds_of(k) < clip.end_seconds, range(first, grid.num_frames, 2))
    return [(k, min(k + 1, grid.num_frames - 1)) for k in firsts]


def pairs_of_frames(frames: Iterable[int]) -> list[Pair]:
    """FrameGrid frames as pairs: both frames of a pair together, a frame without its partner twice."""
    chosen = sorted(set(frames))
    partners = set(chosen)
    return [
        (k, k + 1) if k % 2 == 0 and k + 1 in partners else (k, k)
        for k in chosen
        if not (k % 2 == 1 and k - 1 in partners)
    ]


def runs_of_pairs(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs that follow each other on the grid, together: what is shown as one piece of film."""
    runs: list[list[Pair]] = [[pairs[0]]] if pairs else []
    for before, pair in pairwise(pairs):
        if pair[0] == before[1] + 1:
            runs[-1].append(pair)
        else:
            runs.append([pair])
    return runs


def image_tokens(path: Path, model: Model, *, max_pixels: int | None = None) -> ClipTokens:
    """A picture as the model sees it: a pair that shows it twice, no larger than a frame."""
    from lvqa.models.prompt import ClipTokens

    limit = max_pixels or model.max_pixels
    pixels = read_image(path, size_of=lambda height, width: model.frame_size(height, width, max_pixels=limit))
    tokens = model.encode_pairs(np.stack([pixels, pixels])[None])
    return ClipTokens(tokens, *model.token_grid(*pixels.shape[:2]), is_image=True)


class TokenFile:
    """The tokens of a grid's pairs on disk, a slot each, so that another process need not decode and encode them again.

    A slot begins with the checksum of what it holds. One that was never written, or only in part, counts as empty; so
    several processes may write at once, and a process may die. Where not all can be written, nothing is kept.
    """

    def __init__(self, path: Path, *, num_pairs: int, most_bytes: int) -> None:
        """Nothing is kept if all pairs together take more than `most_bytes`."""
        self._path, self._num_pairs, self._most_bytes = path, num_pairs, most_bytes

    def has_room(self, pair_bytes: int) -> bool:
        """For all of the pairs, each so large."""
        return self._num_pairs * pair_bytes <= self._most_bytes

    def write(self, slots: Mapping[int, bytes]) -> None:
        """Fill some slots; all hold equally much."""
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                for slot, data in slots.items():
                    size = _CHECKSUM.size + len(data)
                    os.pwrite(file, _SIZE.pack(size), 0)
                    os.pwrite(file, _checksum(slot, data) + data, _SIZE.size + slot * size)
            finally:
                os.close(file)
        except OSError:  # no folder, no room
            with suppress(OSError):
                self._path.unlink()

    def read(self, slot: int) -> bytearray | None:
        """What a slot holds, if it holds anything."""
        held = self._beginning_of(slot)
        data = None if held is None else bytearray(held[_CHECKSUM.size :])
        return data if data and held == _checksum(slot, data) + data else None

    def seems_to_hold(self, slot: int) -> bool:
        """Whether a slot was written, be it in part: what it costs little to know."""
        return any(self._beginning_of(slot, _CHECKSUM.size) or ())

    def _beginning_of(self, slot: int, num_bytes: int | None = None) -> bytes | None:
        """All of a slot, or so many bytes."""
        with suppress(OSError, struct.error), self._path.open("rb", buffering=0) as file:
            (size,) = _SIZE.unpack(file.read(_SIZE.size))
            if size <= os.fstat(file.fileno()).st_size:  # or it is no such file
                return os.pread(file.fileno(), num_bytes or size, _SIZE.size + slot * size)
        return None


_SIZE, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")


def _checksum(slot: int, data: bytes | bytearray) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(data, slot))


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
    ) -> None:
        """`file` is where pairs are kept for other processes."""
        self.video, self.grid = video, grid
        self.height, self.width = model.frame_size(video.height, video.width, max_pixels=max_pixels or model.max_pixels)
        self.frames_substituted = 0
        """Frames so far whose own picture is damaged."""
        self.on_pairs: Callable[[int], None] = lambda _: None
        """Called with a number of pairs as they become ready."""
        self._model = model
        self._decoder, self._threads, self._stall_seconds = decoder, threads, stall_seconds
        self._memory_bytes = memory_bytes
        self._held: Held[Pair, Tensor] = Held(memory_bytes)
        self._room: Tensor | None = None
        """(pairs, rows * cols, width) in which the held ones lie."""
        self._file = file

    @property
    def counts(self) -> Counts:
        """What the model has spent so far, decoding included."""
        return self._model.counts

    def keep(self, tokens: Mapping[Pair, Tensor]) -> None:
        """Hold these pairs' tokens, (rows * cols, dim) each, as far as the memory goes."""
        for pair, held in tokens.items():
            if self._held.get(pair) is None:
                self._held.keep(pair, self._copy(pair, held))

    def _copy(self, pair: Pair, tokens: Tensor) -> Tensor:
        """A copy: a row of a batch would keep the whole batch alive.

        On a CPU where all pairs may be held, it is a row of one piece of memory: thousands of small pieces between what
        comes and goes leave the heap full of holes, and a process would grow with the film by several times their size.
        """
        slot = self._slot(pair)
        if tokens.device.type != "cpu" or slot is None or self.grid.num_pairs * tokens.nbytes > self._memory_bytes:
            return tokens.clone()
        if self._room is None:
            self._room = tokens.new_empty((self.grid.num_pairs, *tokens.shape))
        return self._room[slot].copy_(tokens)

    def stream(self, groups: Sequence[Sequence[Pair]]) -> Iterator[list[Tensor]]:
        """For each group its pairs' tokens, (rows * cols, dim) each. Groups ascend in time: the film is read once."""
        missing = [[pair for pair in group if not self._is_known(pair)] for group in groups]
        frames = sorted({frame for group in missing for pair in group for frame in pair})
        pixels = self._pixels(frames)
        at_once = self._model.pairs_at_once(self.height, self.width)
        try:
            for part in _batches(groups, at_once):
                wanted = list(dict.fromkeys(chain.from_iterable(groups[part])))
                new = list(dict.fromkeys(chain.from_iterable(missing[part])))
                ready = {pair: found for pair in wanted if (found := self._found(pair)) is not None}
                # Held tokens may have made room for others since; what a group needs is asked for again.
                late = [pair for pair in wanted if pair not in ready and pair not in new]
                ready.update(self._encode([pair for pair in new if pair not in ready], pixels))
                if late:
                    ready.update(self._encode(late, self._pixels(sorted({k for pair in late for k in pair}))))
                self.keep(ready)
                for group in groups[part]:
                    self.on_pairs(len(group))
                    yield [ready[pair] for pair in group]
        finally:
            pixels.close()

    def blocks(self, groups: Sequence[Sequence[Pair]]) -> Iterator[ClipTokens]:
        """Each group as one piece of film, whose seconds count from its start."""
        for group, tokens in zip(groups, self.stream(groups), strict=True):
            yield self.block(group, tokens, start_seconds=self.grid.seconds_of(group[0][0]))

    def block(self, pairs: Sequence[Pair], tokens: Sequence[Tensor], *, start_seconds: float | None) -> ClipTokens:
        """The block whose seconds count from `start_seconds`; None: it has none, and its pairs follow evenly."""
        import torch

        from lvqa.models.prompt import ClipTokens

        def since_start(frame: int) -> float:
            return self.grid.seconds_of(frame) - (start_seconds or 0.0)

        seconds = tuple((since_start(a), since_start(b)) for a, b in pairs) if start_seconds is not None else ()
        rows, cols = self._model.token_grid(self.height, self.width)
        return ClipTokens(torch.stack(list(tokens)), rows, cols, seconds)

    def _pixels(self, frames: Sequence[int]) -> _PixelReader:
        return _PixelReader(self, frames)

    def _encode(self, pairs: Sequence[Pair], pixels: _PixelReader) -> dict[Pair, Tensor]:
        import torch

        if not pairs:
            return {}
        stack = np.stack([np.stack([pixels.frame(frame) for frame in pair]) for pair in pairs])
        encoded = self._model.encode_pairs(stack)
        if self._file is not None and self._file.has_room(encoded[0].nbytes):
            data = encoded.cpu().flatten(1).view(torch.uint8).numpy()
            slots = map(self._slot, pairs)
            self._file.write({slot: row.tobytes() for slot, row in zip(slots, data, strict=True) if slot is not None})
        return dict(zip(pairs, encoded.unbind(0), strict=True))

    def _is_known(self, pair: Pair) -> bool:
        slot = self._slot(pair)
        return pair in self._held or (self._file is not None and slot is not None and self._file.seems_to_hold(slot))

    def _found(self, pair: Pair) -> Tensor | None:
        from lvqa.models.devices import to_device

        held = self._held.get(pair)
        if held is not None:
            return held
        kept = self._in_file(pair)
        return None if kept is None else to_device(kept, self._model.device)

    def _in_file(self, pair: Pair) -> Tensor | None:
        """(rows * cols, width), if the file has this pair."""
        import torch

        slot = self._slot(pair)
        data = None if self._file is None or slot is None else self._file.read(slot)
        if data is None:
            return None
        cells = math.prod(self._model.token_grid(self.height, self.width))
        return torch.frombuffer(data, dtype=self._model.dtype).view(cells, -1)

    def _slot(self, pair: Pair) -> int | None:
        """Which of the grid's pairs this is; None for a frame that is shown without its partner."""
        first, second = pair
        is_whole = first % 2 == 0 and second == min(first + 1, self.grid.num_frames - 1)
        return first // 2 if is_whole else None


def _batches(groups: Sequence[Sequence[Pair]], most: int) -> Iterator[slice]:
    """Runs of groups that have so many pairs together, or of a single group with more."""
    first, pairs = 0, 0
    for number, group in enumerate(groups):
        if number > first and pairs + len(group) > most:
            yield slice(first, number)
            first, pairs = number, 0
        pairs += len(group)
    if first < len(groups):
        yield slice(first, len(groups))


class _PixelReader:
    """Decoded frames in ascending order, read as they are asked for. Opens the file at the first one."""

    def __init__(self, tokens: VisualTokens, frames: Sequence[int]) -> None:
        self._tokens = tokens
        self._frames = frames
        self._batches = read_frames(
            tokens.video,
            tokens.grid.times_seconds[list(frames)],
            height=tokens.height,
            width=tokens.width,
            decoder=tokens._decoder,
            threads=tokens._threads,
            stall_seconds=tokens._stall_seconds,
        )
        self._read = 0
        self._ready: dict[int, np.ndarray] = {}

    def frame(self, frame: int) -> np.ndarray:
        """(height, width, 3) of a grid frame; only the last few frames asked for can be had again."""
        while frame not in self._ready:
            batch = next(self._batches)
            names = self._frames[self._read : self._read + len(batch.pixels)]
            self._read += len(batch.pixels)
            # The batch before stays: a pair may lie across two.
            recent = dict(list(self._ready.items())[-len(names) :])
            self._ready = recent | dict(zip(names, batch.pixels, strict=True))
            self._tokens.counts.frames_decoded += len(names)
            self._tokens.frames_substituted += int(batch.substituted.sum())
        return self._ready[frame]

    def close(self) -> None:
        """Stop decoding."""
        self._batches.close()
