"""Visual tokens on disk: a file for the pairs of a video, and the bound on the files of a store together."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lvqa.places import evict, hold, is_at, stored_files

_log = logging.getLogger(__name__)

SUFFIX = ".tokens"
"""The names of token files end so."""
FREE_SHARE = 4
"""Where nothing else bounds them, token files take one part in so many of what would be free without them."""
RESERVE_BYTES = 256 << 20
"""Room is made for so much at a time: to look through a folder takes milliseconds."""

_HEADER, _CHECKSUM, _LENGTH = struct.Struct("<QQ"), struct.Struct("<I"), struct.Struct("<I")
_ELEMENT_BYTES = 2
"""Numbers of so many bytes are compressed: half of such a number hardly varies, and a quarter of a longer one."""


@dataclass(frozen=True, slots=True)
class TokenBound:
    """How much the token files of a folder may take together."""

    max_bytes: int | None = None
    """The bound; None: one part in FREE_SHARE of what is free on the disk, or is taken by token files."""
    needed: Callable[[Iterable[str]], set[str]] = set
    """Returns which of the files with these names are of use; the others are removed first."""

    def limit(self, folder: Path) -> int:
        """Return how many bytes the token files of a folder may take."""
        if self.max_bytes is not None:
            return self.max_bytes
        taken = sum(file.num_bytes for file in stored_files(folder, SUFFIX))
        return (shutil.disk_usage(folder).free + taken) // FREE_SHARE

    def reserve(self, folder: Path, num_bytes: int) -> int:
        """Remove files that no process uses, if need be: those of no use first, then the least recently used.

        Args:
            folder: The folder of the files.
            num_bytes: What is to be added.

        Returns:
            How many bytes may be added before room is made again; 0 if not even these may.
        """
        files, limit = stored_files(folder, SUFFIX), self.limit(folder)
        wanted = max(num_bytes, min(RESERVE_BYTES, limit // 16))
        total = sum(file.num_bytes for file in files)
        if total + wanted > limit:
            needed = self.needed(file.path.name for file in files)
            total = evict(sorted(files, key=lambda file: file.path.name in needed), limit - wanted)
        granted = min(wanted, limit - total)
        return granted if granted >= num_bytes else 0


class TokenFile:
    """The tokens of a video's pairs on disk, a slot each, so that nobody need decode and encode them again.

    Each pair of the grid has a slot of its own, and other pairs share as many more: of those that meet in a slot the
    last one is kept. The file begins with the size of a slot and the model's width; under another width all slots count
    as empty. A slot begins with the checksum of its data, its pair, the width and the compression. One that was never
    written, or only in part, counts as empty; so several processes may write at once, and a process may die. Where not
    all can be written, nothing is kept. Who reads or writes holds the file until `close`, so that it is not removed to
    make room.

    Numbers of two bytes are compressed without loss. Their slots are as large as if they were not: what is left over is
    a hole in the file, which takes no room on the disk.
    """

    def __init__(self, path: Path, *, num_pairs: int, width: int, bound: TokenBound, element_bytes: int = 4) -> None:
        """Name the file, which need not exist.

        Args:
            path: The file; its folder must exist, or nothing is kept.
            num_pairs: How many pairs the grid has.
            width: The width of the model's states.
            bound: Nothing is kept if the grid's pairs alone would take more.
            element_bytes: The size of one number of the tokens.
        """
        self._path, self._num_pairs, self._width, self._bound = path, num_pairs, width, bound
        self._is_packed = element_bytes == _ELEMENT_BYTES
        self._data_offset = _CHECKSUM.size + (_LENGTH.size if self._is_packed else 0)
        """Where a pair's data begin in its slot."""
        self._file: BinaryIO | None = None
        self._slot_bytes = 0
        """The size of a slot as the open file says it; 0 where it is not yet known, or not ours."""
        self._reserved_bytes = 0
        self._gave_up = False

    def close(self) -> None:
        """Let go of the file; it is opened again when it is needed."""
        if self._file is not None:
            self._file.close()
        self._file, self._slot_bytes, self._reserved_bytes = None, 0, 0

    def has_room(self, pair_bytes: int) -> bool:
        """Return whether the grid's pairs may be kept if each takes so many bytes."""
        if not self._gave_up and not self._reserved_bytes:
            num_bytes = self._num_pairs * pair_bytes
            with suppress(OSError):  # there is no folder yet
                self._gave_up = num_bytes > self._bound.limit(self._path.parent)
            if self._gave_up:
                _log.info("visual tokens of %d bytes are more than may be kept (store.disk_mib)", num_bytes)
        return not self._gave_up

    def write(self, pairs: Mapping[int, bytes]) -> None:
        """Fill the slots of some pairs, by their numbers; the data of all of them are equally long."""
        try:
            if self._file is not None and not (self._file.writable() and is_at(self._path, self._file)):
                self.close()  # it was only read, or somebody has removed it
            self._file = self._file or hold(self._path, os.O_RDWR | os.O_CREAT)
            if self._file is not None:  # else there is no folder yet
                self._write(self._file, pairs)
        except OSError as error:
            _log.info("visual tokens are not kept in %s: %s", self._path.parent, error.strerror or error)
            self._gave_up = True  # the room that this makes must not tempt to keep a part
            if self._file is not None:
                with suppress(OSError):
                    self._path.unlink()
            self.close()

    def read(self, number: int) -> bytearray | None:
        """Return a pair's data, or None if its slot is empty."""
        content = self._read_bytes(number)
        if not content or content[: _CHECKSUM.size] != self._checksum(number, body := content[_CHECKSUM.size :]):
            return None
        return self._unpack(body) if self._is_packed else bytearray(body)

    def may_contain(self, number: int) -> bool:
        """Return whether a pair's slot was written, at least in part; this is cheaper than to read it."""
        return any(self._read_bytes(number, _CHECKSUM.size) or ())

    def _write(self, file: BinaryIO, pairs: Mapping[int, bytes]) -> None:
        packed = {number: self._pack(data) for number, data in pairs.items()}
        num_bytes = sum(map(len, packed.values()))
        if num_bytes > self._reserved_bytes:
            self._reserved_bytes = self._bound.reserve(self._path.parent, num_bytes)
            if not self._reserved_bytes:
                raise OSError(errno.ENOSPC, "no more may be kept (store.disk_mib), and all that is kept is in use")
        self._reserved_bytes -= num_bytes
        for number, body in packed.items():
            size = self._slot_bytes = self._data_offset + len(pairs[number])
            slot = self._checksum(number, body) + body
            parts = {0: _HEADER.pack(size, self._width), self._offset(number, size): slot}
            if any(os.pwrite(file.fileno(), part, offset) < len(part) for offset, part in parts.items()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a disk that gets full takes a part of it

    def _read_bytes(self, number: int, num_bytes: int | None = None) -> memoryview | None:
        """Return the first bytes of a pair's slot, or all that was written of it; None if there is no such file."""
        with suppress(OSError, struct.error):
            if self._file is None:
                self._file = self._open()
            if self._file is None:
                return None
            file = self._file.fileno()
            self._slot_bytes = self._slot_bytes or self._read_slot_bytes(file)
            if self._slot_bytes:
                offset, size = self._offset(number, self._slot_bytes), num_bytes or self._slot_bytes
                if self._is_packed and num_bytes is None:
                    (length,) = _LENGTH.unpack(os.pread(file, _LENGTH.size, offset + _CHECKSUM.size))
                    size = min(self._data_offset + length, size)
                return memoryview(os.pread(file, size, offset))
        return None

    def _open(self) -> BinaryIO | None:
        try:
            return hold(self._path, os.O_RDWR)
        except OSError:  # it may be read, and not written
            return hold(self._path)

    def _read_slot_bytes(self, file: int) -> int:
        """Return how large a slot is by the file's beginning; 0 for another model's file, or another kind of file."""
        size, width = _HEADER.unpack(os.pread(file, _HEADER.size, 0))
        is_ours = width == self._width and size // 2 <= os.fstat(file).st_size  # compressed it takes half at least
        return int(size) if is_ours else 0

    def _offset(self, number: int, slot_bytes: int) -> int:
        """Return where a pair's slot begins: those of the grid's pairs follow each other, then come those of others."""
        slot = number
        if number >= self._num_pairs:
            slot = self._num_pairs + zlib.crc32(_HEADER.pack(number, self._width)) % self._num_pairs
        return _HEADER.size + slot * slot_bytes

    def _checksum(self, number: int, body: bytes | memoryview) -> bytes:
        name = _HEADER.pack(number, self._width) + (b"zstd" if self._is_packed else b"")
        return _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(name)))

    def _pack(self, data: bytes) -> bytes:
        """Return what is written for a pair's data: of numbers of two bytes, the lower bytes and the upper compressed.

        The upper byte has the sign and most of the exponent, which hardly varies; the lower one is noise.
        """
        import pyarrow

        if not self._is_packed:
            return data
        halves = np.frombuffer(data, np.uint8)
        packed: bytes = halves[::2].tobytes() + pyarrow.compress(halves[1::2].tobytes(), codec="zstd", asbytes=True)
        shorter = min(packed, data, key=len)
        return _LENGTH.pack(len(shorter)) + shorter

    def _unpack(self, body: memoryview) -> bytearray:
        import pyarrow

        packed, num_bytes = body[_LENGTH.size :], self._slot_bytes - self._data_offset
        if len(packed) == num_bytes:
            return bytearray(packed)
        data = bytearray(num_bytes)
        halves, num_lower = np.frombuffer(data, np.uint8), -(-num_bytes // 2)
        halves[::2] = packed[:num_lower]
        upper = pyarrow.decompress(packed[num_lower:], num_bytes // 2, codec="zstd")
        halves[1::2] = np.frombuffer(upper, np.uint8)
        return data

    def __del__(self) -> None:
        self.close()
