"""Read pictures: those that a query may hold, and those that stand in for a video."""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.records import MAX_ASPECT, VIDEO_SUFFIXES, FileKey, LvqaError, file_key, shorten

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


def read_image(
    picture: str | Path | Picture | np.ndarray, *, size_of: Callable[[int, int], tuple[int, int]] | None = None
) -> np.ndarray:
    """Return a picture's pixels, (height, width, 3) uint8, RGB, upright.

    It is scaled as the library's image processors do it (bicubic, transparency dropped).

    Args:
        picture: A file, one of Pillow's pictures, or pixels, (height, width, 3) uint8, RGB.
        size_of: Returns the height and width to scale a picture of some height and width to; None keeps its size.

    Raises:
        LvqaError: The file is missing, is no picture, or is too large or too narrow a picture.
    """
    from PIL import Image

    upright = _upright(picture)
    if max(upright.size) > MAX_ASPECT * min(upright.size):
        name = f"image {shorten(str(picture))}" if isinstance(picture, str | Path) else "an image"
        size = f"{upright.height} x {upright.width}"
        raise LvqaError(f"{name} is {size}: one side may be {MAX_ASPECT} times the other at most")
    height, width = size_of(upright.height, upright.width) if size_of else (upright.height, upright.width)
    return np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC))


def save_picture(path: Path, pixels: np.ndarray) -> None:
    """Write pixels, (height, width, 3) uint8, RGB, into a file in the format of its suffix, of high quality.

    Raises:
        OSError: The folder or the disk refuses it.
    """
    from PIL import Image

    Image.fromarray(pixels).save(path, quality=95)


def picture_bytes(pixels: np.ndarray, suffix: str) -> bytes:
    """Return pixels, (height, width, 3) uint8, RGB, as the content of a file in the format of a suffix, "jpg"."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, Image.registered_extensions()[f".{suffix}"], quality=85)
    return file.getvalue()


def is_picture_file(path: str | Path) -> bool:
    """Return whether the name is that of a still picture."""
    from PIL import Image

    suffix = Path(path).suffix.lower()
    return suffix in Image.registered_extensions() and suffix not in VIDEO_SUFFIXES


def is_pillow_picture(value: object) -> bool:
    """Return whether this is one of Pillow's pictures."""
    from PIL import Image

    return isinstance(value, Image.Image)


def is_picture(value: object) -> bool:
    """Return whether this is one of Pillow's pictures, or the path of a picture's file."""
    return is_pillow_picture(value) or (isinstance(value, str | Path) and is_picture_file(value))


def on_one_canvas(pictures: Sequence[str | Path | Picture]) -> Iterator[np.ndarray]:
    """Yield pictures as pixels, (height, width, 3) uint8, RGB, all of one size.

    The size is that of the largest sides; a smaller picture is in the middle, on black, and none is scaled.

    Args:
        pictures: Files, or Pillow's pictures; one is in memory at a time.

    Raises:
        LvqaError: A file is missing, or is no picture.
    """
    from PIL import Image

    sizes = [_upright(picture).size for picture in pictures]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    for picture in map(_upright, pictures):
        canvas = Image.new("RGB", (width, height))
        canvas.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
        yield np.asarray(canvas)


def _upright(picture: str | Path | Picture | np.ndarray) -> Picture:
    from PIL import Image, ImageOps

    if isinstance(picture, str | Path):
        return _open_upright(Path(picture))
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            raise LvqaError(
                f"an image must be (height, width, 3) uint8, got {picture.shape} {picture.dtype}; or give its file"
            )
        return Image.fromarray(picture)
    return ImageOps.exif_transpose(picture).convert("RGB")


def _open_upright(path: Path) -> Picture:
    """Return the decoded picture, or raise LvqaError, which names the file."""
    from PIL import Image

    try:
        return _decode(path, file_key(path))
    except FileNotFoundError as error:
        raise LvqaError(f"image {shorten(str(path))}: there is no such file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise LvqaError(f"image {shorten(str(path))} is larger than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:  # a damaged PNG is a SyntaxError
        raise LvqaError(f"image {shorten(str(path))} cannot be read; give a picture: PNG, JPEG, WebP, ...") from error


@functools.lru_cache(maxsize=2)
def _decode(path: Path, _: FileKey) -> Picture:
    """Return the file's picture, upright and in RGB; it is remembered as long as the file stays as it is.

    So a question that is checked and then embedded decodes its picture once.
    """
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image_file:
            return ImageOps.exif_transpose(image_file).convert("RGB")
