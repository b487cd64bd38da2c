"""Say why a file is no video that can be read, where its own bytes tell: it is encrypted, or a still image."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MAX_BOX_BYTES = 1 << 26
"""How much of an MP4's header is searched."""

_MAX_SAMPLE_BYTES = 1 << 20
"""How much of an MPEG-TS file is searched."""

_PICTURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"8BPS": "PSD",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
}
"""The first bytes of a file that holds a picture -> the name of its format."""

_PICTURE_BRANDS = {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}
"""The brand of an MP4-like file with a still image -> the name of its format. Sequences have other brands."""

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_ENCRYPTION = (bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"), bytes.fromhex("14e68a292226174cb935dae07ee9289c"))
"""The names of ASF's objects for the content encryption, and for its extended form."""


def certain_refusal(path: Path) -> str | None:
    """Return why a file can't be read although FFmpeg opens it, in a few words; None: nothing is against it."""
    with path.open("rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp" and start[8:12] in _PICTURE_BRANDS:
            return _still_image(_PICTURE_BRANDS[start[8:12]])
        is_encrypted = any(map(_is_encrypted_mp4, _mp4_headers(file))) or _is_encrypted_asf(file)
        return _ENCRYPTED if is_encrypted else None


def likely_refusal(path: Path) -> str | None:
    """Return why FFmpeg could not read a file, in a few words; None: its first bytes do not tell."""
    with path.open("rb") as file:
        data = file.read(_MAX_SAMPLE_BYTES)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _still_image("WebP")
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        return _still_image("BMP")
    for signature, name in _PICTURES.items():
        if data.startswith(signature):
            return _still_image(name)
    return _ENCRYPTED if _is_scrambled(data) else None


def refusal_of_one_frame(path: Path) -> str | None:
    """Return why a file with one frame is no video, in a few words; None: it may be a short one."""
    with path.open("rb") as file:
        return _still_image("GIF") if file.read(4) == b"GIF8" else None


_ENCRYPTED = "it is encrypted (DRM); expected a video file without encryption"


def _still_image(name: str) -> str:
    return f"it is a still image ({name}); expected a video"


def _mp4_headers(file: BinaryIO) -> Iterator[bytes]:
    """Yield the boxes of an MP4 file that say how its streams are coded; none if it is no MP4 file."""
    size = os.fstat(file.fileno()).st_size
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        if not name.isalnum() or (not position and name not in (b"ftyp", b"moov", b"styp", b"free", b"skip", b"wide")):
            return
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
        if name == b"moov":
            yield file.read(min(length or size, _MAX_BOX_BYTES))
        if length < 8:  # the last box may reach to the end of the file
            return
        position += length


def _is_encrypted_mp4(header: bytes) -> bool:
    """Return whether a stream of pictures is encrypted: all boxes of the protection scheme are there."""
    return all(name in header for name in (b"encv", b"sinf", b"schm", b"frma"))


def _is_encrypted_asf(file: BinaryIO) -> bool:
    """Return whether the header of an ASF file (wmv, asf) has an object of encryption."""
    file.seek(0)
    start = file.read(24)
    if len(start) < 24 or start[:16] != _ASF_HEADER:
        return False
    header = file.read(min(int.from_bytes(start[16:], "little"), _MAX_SAMPLE_BYTES))
    return any(name in header for name in _ASF_ENCRYPTION)


def _is_scrambled(data: bytes) -> bool:
    """Return whether the packets of MPEG-TS data, of 188 bytes or with 4 more before each, are scrambled."""
    for length, offset in ((188, 0), (192, 4)):
        packets = [data[i : i + 4] for i in range(offset, len(data) - 3, length)]
        if len(packets) > 8 and all(packet[0] == 0x47 for packet in packets):
            return sum(packet[3] >> 6 > 1 for packet in packets) > len(packets) // 4
    return False
