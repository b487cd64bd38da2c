"""Read questions by voice from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lvqa.records import LvqaError, shorten

SAMPLES_PER_SECOND = 16_000
"""The rate that speech models take."""
MAX_SECONDS = 300
"""A question by voice may be so long at most: Qwen2.5-Omni takes no more at once."""


def read_audio(path: Path, *, name: str = "voice") -> np.ndarray:
    """Return the samples of a sound file or of a video's first sound track, (samples,) float32 from -1 to 1.

    The channels are mixed, and the rate is SAMPLES_PER_SECOND.

    Args:
        path: The file.
        name: What messages call it.

    Raises:
        LvqaError: The file is missing, has no sound, or is longer than MAX_SECONDS.
    """
    import av

    where = f"{name} {shorten(str(path))}"
    if not path.exists():
        raise LvqaError(f"{where}: there is no such file")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLES_PER_SECOND)
    pieces, num_samples = list[np.ndarray](), 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(audio=0):
                resampled = [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
                pieces += resampled
                num_samples += sum(map(len, resampled))
                if num_samples > MAX_SECONDS * SAMPLES_PER_SECOND:
                    raise LvqaError(f"{where} is longer than {MAX_SECONDS} seconds")
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except (OSError, ValueError, IndexError) as error:  # av's own errors are one of these; no track is an IndexError
        raise LvqaError(f"{where} cannot be read; give a sound file: WAV, MP3, FLAC, ...") from error
    if not num_samples:
        raise LvqaError(f"{where} holds no sound")
    return np.concatenate(pieces)
