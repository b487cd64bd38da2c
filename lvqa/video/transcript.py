"""What is said in a video, written down by a model of speech, where the extra `speech` is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from lvqa.files import write_atomically
from lvqa.records import LvqaError, Subtitle, Video
from lvqa.video.sound import SAMPLES_PER_SECOND, read_sound

_log = logging.getLogger(__name__)

TRANSCRIPT_VERSION = 1
"""Raise this number when the same sound gives another transcript."""
PIECE_SECONDS = 60.0
"""So much sound is decoded at a time."""
_MODEL_RATE = 16_000
_MAX_BYTES = 64 << 20


def transcribe(video: Video, model: str, folder: Path) -> tuple[Subtitle, ...]:
    """Return what is said in a video; nothing if faster-whisper is not installed, or the video has no sound.

    Args:
        video: The inspected file.
        model: A model of faster-whisper, by its name ("base") or its folder.
        folder: Where transcripts are kept.

    Raises:
        LvqaError: There is no such model.
    """
    if importlib.util.find_spec("faster_whisper") is None:
        return ()
    spec = f"{TRANSCRIPT_VERSION} {model} {version('faster-whisper')}"
    path = folder / f"{video.id}-{hashlib.sha256(spec.encode()).hexdigest()[:16]}.transcript"
    kept = _load(path, spec)
    if kept is not None:
        return kept
    lines = _transcribe(video, model)
    content = {"spec": spec, "lines": [(line.start_seconds, line.end_seconds, line.text) for line in lines]}
    with suppress(OSError):  # a store that can't be written costs the next process the work
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content))
    return lines


def _transcribe(video: Video, name: str) -> tuple[Subtitle, ...]:
    sound = _mono(video)
    if sound is None:
        return ()
    from faster_whisper import WhisperModel

    _log.info("%s: writing down %d s of speech with %s", video.path, len(sound) // _MODEL_RATE, name)
    try:
        model = WhisperModel(name)
    except Exception as error:  # of the hub, of a folder, of the name
        raise LvqaError(f"video.speech_model: faster-whisper can't load {name!r} ({error})") from error
    segments, _ = model.transcribe(sound, vad_filter=False, beam_size=5, temperature=0.0)
    return tuple(Subtitle(float(s.start), float(s.end), " ".join(s.text.split())) for s in segments)


def _mono(video: Video) -> np.ndarray | None:
    """Return the whole sound, (samples,) float32 at the model's rate; None if there is none."""
    from scipy.signal import resample_poly

    pieces = list[np.ndarray]()
    for i in range(math.ceil(video.duration_seconds / PIECE_SECONDS)):
        start = i * PIECE_SECONDS
        stereo = read_sound(video, start, min(start + PIECE_SECONDS, video.duration_seconds))
        if stereo is None:
            return None
        pieces.append(resample_poly(stereo.mean(axis=0), 1, SAMPLES_PER_SECOND // _MODEL_RATE).astype(np.float32))
    return np.concatenate(pieces) if pieces else None


def _load(path: Path, spec: str) -> tuple[Subtitle, ...] | None:
    """Return the transcript that is kept under this spec, or None. Anyone may have written the file."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        if path.is_file() and path.stat().st_size <= _MAX_BYTES:
            content = json.loads(path.read_bytes())
            return _parsed(content["lines"]) if content["spec"] == spec else None
    return None


def _parsed(rows: Sequence[Sequence[object]]) -> tuple[Subtitle, ...]:
    """Return lines as JSON holds them; ValueError or TypeError for what is none."""
    lines = tuple(Subtitle(float(start), float(end), str(text)) for start, end, text in rows)  # type: ignore[arg-type]
    if not all(math.isfinite(line.start_seconds) and math.isfinite(line.end_seconds) for line in lines):
        raise ValueError("a time is not finite")
    return lines
