"""Pictures that a query may hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lvqa.records import LvqaError, shorten

MAX_RATIO = 200
"""Of one side to the other: Qwen's own limit."""


def read_image(path: Path, *, size_of: Callable[[int, int], tuple[int, int]] | None = None) -> np.ndarray:
    """(height, width, 3) uint8, RGB, upright; `size_of` gives the size to draw a picture of some height and width at.

    Scaled as the library's image processors do it (bicubic, transparency dropped). LvqaError for what is no picture.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                picture = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError as error:
        raise LvqaError(f"image {shorten(str(path))}: there is no such file") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise LvqaError(f"image {shorten(str(path))} is larger than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except (OSError, SyntaxError, ValueError) as error:  # a damaged PNG is a SyntaxError
        raise LvqaError(f"image {shorten(str(path))} cannot be read; give a picture: PNG, JPEG, WebP, ...") from error
    if max(picture.size) > MAX_RATIO * min(picture.size):
        size = f"{picture.height} x {picture.width}"
        raise LvqaError(f"image {shorten(str(path))} is {size}: one side may be {MAX_RATIO} times the other at most")
    height, width = size_of(picture.height, picture.width) if size_of else (picture.height, picture.width)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
