"""Read the pictures that a query may hold."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lvqa.records import MAX_ASPECT, FileKey, LvqaError, file_key, shorten

if TYPE_CHECKING:
    from PIL.Image import Image as Picture


def read_image(path: Path, *, size_of: Callable[[int, int], tuple[int, int]] | None = None) -> np.ndarray:
    """Return a picture's pixels, (height, width, 3) uint8, RGB, upright.

    It is scaled as the library's image processors do it (bicubic, transparency dropped).

    Args:
        path: The file.
        size_of: Returns the height and width to scale a picture of some height and width to; None keeps its size.

    Raises:
        LvqaError: The file is missing, is no picture, or is too large or too narrow a picture.
    """
    from PIL import Image

    picture = _open_upright(path)
    if max(picture.size) > MAX_ASPECT * min(picture.size):
        size = f"{picture.height} x {picture.width}"
        raise LvqaError(f"image {shorten(str(path))} is {size}: one side may be {MAX_ASPECT} times the other at most")
    height, width = size_of(picture.height, picture.width) if size_of else (picture.height, picture.width)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


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
