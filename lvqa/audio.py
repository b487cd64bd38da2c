"""Questions by voice, read from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lvqa.records import LvqaError, shorten

SAMPLES_PER_SECOND = 16_000
"""As speech models hear."""
MAX_SECONDS = 300
"""Of a question by voice: as much as Qwen2.5-Omni hears at once."""


def read_audio(path: Path) -> np.ndarray:
    """(samples,) float32 from -1 to 1, the channels of a sound file or of a film's first sound track mixed.

    LvqaError for what is no sound, or is longer than MAX_SECONDS.
    """
    import av

    where = f"voice {shorten(str(path))}"
    if not path.exists():
        raise LvqaError(f"{where}: there is no such file")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLES_PER_SECOND)
    parts, num_samples = list[np.ndarray](), 0
    try:
        with av.open(str(path)) as opened:
            for frame in opened.decode(audio=0):
                resampled = [part.to_ndarray()[0] for part in resampler.resample(frame)]
                parts += resampled
                num_samples += sum(map(len, resampled))
                if num_samples > MAX_SECONDS * SAMPLES_PER_SECOND:
                    raise LvqaError(f"{where} is longer than {MAX_SECONDS} seconds; ask in fewer words")
            parts += [part.to_ndarray()[0] for part in resampler.resample(None)]
    except (OSError, ValueError, IndexError) as error:  # av's own errors are one of these; no track is an IndexError
        raise LvqaError(f"{where} cannot be read; give a sound file: WAV, MP3, FLAC, ...") from error
    if not num_samples:
        raise LvqaError(f"{where} holds no sound")
    return np.concatenate(parts)
