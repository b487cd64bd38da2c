"""What is said in a video, as a second stream beside its pictures: lines with times, their vectors, their ranks.

The lines are those of a file, of a track in the video, or of a transcript. Each is embedded like a question, and a clip
counts by its best line. How well a clip's pictures and its lines match are two rankings, merged by their ranks.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lvqa import prompts
from lvqa.embedding import EMBEDDING_FORMAT
from lvqa.files import write_atomically
from lvqa.index import Store
from lvqa.models import Model
from lvqa.places import as_path
from lvqa.records import Candidate, Subtitle, Video, file_key
from lvqa.session import IndexSpec, VideoSession
from lvqa.subtitles import SpokenSource, read_subtitles, sidecar_of, tidied
from lvqa.video import read_subtitle_track, transcribe

_log = logging.getLogger(__name__)

LINES_FORMAT = 1
"""Raise this number when the same file gives other lines, or the same line another vector."""

RANK_CONSTANT = 1
"""Added to ranks before they are merged (k of reciprocal rank fusion): the smaller, the more the first of either
ranking counts, and the less what is in the middle of both."""
LINE_WEIGHT = 0.5
"""What the ranking by lines counts against that by pictures: most lines have nothing to do with a question."""

NEAR_SECONDS = 8.0
"""Lines so near to a frame of an answer are shown with it: half of a clip."""
MAX_CHARACTERS = 6000
"""So many characters of lines are shown with an answer, those nearest to its frames."""


@dataclass(frozen=True, slots=True)
class SpokenLines:
    """The lines of a video, in the order of time."""

    lines: tuple[Subtitle, ...]
    source: str
    """Where they are from: a file, "track" for the video itself, or the transcript's model."""

    @property
    def digest(self) -> str:
        """What tells these lines from others."""
        return hashlib.sha256(repr(self.lines).encode(errors="surrogatepass")).hexdigest()[:16]


NO_LINES = SpokenLines((), "")


def spoken_lines(session: VideoSession, source: SpokenSource, store: Store) -> SpokenLines:
    """Return the lines of an open video; none if the settings want none, or it has none.

    Args:
        session: The open video; it remembers the lines.
        source: Where they are from.
        store: It keeps transcripts.

    Raises:
        LvqaError: The file of subtitles can't be read.
    """
    if source.is_off:
        return NO_LINES
    video = session.video
    file = sidecar_of(video.path) if source.subtitles == "auto" else as_path(source.subtitles).expanduser()
    key = ("lines", source, file and (str(file), _state(file)))
    if key not in session.spoken:
        session.spoken[key] = _read_lines(video, file, source, store)
    lines: SpokenLines = session.spoken[key]
    return lines


def _state(file: Path) -> object:
    with suppress(OSError):
        return file_key(file)
    return None


def _read_lines(video: Video, file: Path | None, source: SpokenSource, store: Store) -> SpokenLines:
    if file is not None:
        return SpokenLines(tidied(read_subtitles(file), video.duration_seconds), str(file))
    if lines := tidied(read_subtitle_track(video), video.duration_seconds):
        return SpokenLines(lines, "track")
    transcript = transcribe(video, source.speech_model, store.folder)
    return SpokenLines(tidied(transcript, video.duration_seconds), source.speech_model) if transcript else NO_LINES


@dataclass(frozen=True, slots=True, eq=False)
class LineIndex:
    """Lines with their vectors."""

    lines: tuple[Subtitle, ...]
    vectors: np.ndarray = field(repr=False)
    """(lines, dim) float32, unit length."""

    def best_of_clips(self, query: np.ndarray, candidates: Sequence[Candidate]) -> list[tuple[Subtitle, float] | None]:
        """Return for each clip its line that matches a query best, with the cosine; None for a clip without lines.

        Args:
            query: (dim,) unit length.
            candidates: The clips.
        """
        scores = self.vectors @ query
        starts, ends = (np.array([getattr(x, name) for x in self.lines]) for name in ("start_seconds", "end_seconds"))
        best: list[tuple[Subtitle, float] | None] = []
        for candidate in candidates:
            inside = np.flatnonzero((starts < candidate.end_seconds) & (ends > candidate.start_seconds))
            i = inside[np.argmax(scores[inside])] if len(inside) else None
            best.append(None if i is None else (self.lines[i], float(scores[i])))
        return best


def line_index(session: VideoSession, spoken: SpokenLines, spec: IndexSpec, model: Model, store: Store) -> LineIndex:
    """Return the lines of an open video with their vectors: from the session, the store, or the model.

    Args:
        session: The open video; it remembers the index.
        spoken: Its lines.
        spec: How its clips are embedded, and so its lines.
        model: The model that embeds.
        store: It keeps the vectors, under all that made them.
    """
    known_as = {
        "lines": spoken.digest,
        **spec.frames.weights,
        "embedding": spec.embedder.to_dict(),
        "query": prompts.QUERY,
        "formats": [EMBEDDING_FORMAT, LINES_FORMAT],
    }
    path = store.path_of(session.video.id, known_as).with_suffix(".lines")
    if path not in session.spoken:
        vectors = _load(path, known_as, (len(spoken.lines), model.dim))
        if vectors is None:
            vectors = spec.embedder.queries(model, [(line.text, ()) for line in spoken.lines]).astype(np.float16)
            _save(path, known_as, vectors)
        rows = vectors.astype(np.float64)
        unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        session.spoken[path] = LineIndex(spoken.lines, unit)
    index: LineIndex = session.spoken[path]
    return index


def _save(path: Path, known_as: dict[str, Any], vectors: np.ndarray) -> None:
    """Keep vectors for the next process; where the store refuses them, they are made again."""
    file = io.BytesIO()
    np.savez(file, spec=np.array(json.dumps(known_as, sort_keys=True)), vectors=vectors)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.getvalue())
    except OSError as error:
        _log.info("the vectors of the lines are not kept: %s", error)


def _load(path: Path, known_as: dict[str, Any], shape: tuple[int, int]) -> np.ndarray | None:
    """Return the vectors that are kept under exactly this spec, or None. Anyone may have written the file."""
    try:
        if not path.is_file() or path.stat().st_size > 2 * shape[0] * shape[1] + (1 << 16):
            return None
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:  # np.load verifies the checksums
            spec, vectors = str(file["spec"]), file["vectors"]
    except Exception:  # it is no such file in one of many ways
        return None
    is_valid = spec == json.dumps(known_as, sort_keys=True) and vectors.shape == shape and vectors.dtype == np.float16
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1) if is_valid else np.zeros(1)
    return vectors if is_valid and (np.abs(lengths - 1) < 2e-3).all() else None


def merged(candidates: Sequence[Candidate], index: LineIndex, query: np.ndarray) -> list[Candidate]:
    """Merge the ranking of clips by their pictures with that by their lines, by reciprocal rank fusion.

    A clip scores 1 / (k + rank), k = RANK_CONSTANT, in each of the two, ranks counted from 1; that for lines counts
    LINE_WEIGHT, and a clip without lines scores nothing for them. The sum is scaled so that the first of both has 1.
    (Cormack et al., SIGIR 2009.)

    Args:
        candidates: Clips of one length; by pictures, reranked ones come before others.
        index: The lines of their video.
        query: (dim,) unit length.

    Returns:
        All of them, best first, each with its best line.
    """
    best = index.best_of_clips(query, candidates)
    by_pictures = sorted(range(len(candidates)), key=lambda i: picture_rank(candidates[i]))
    by_lines = sorted((i for i, line in enumerate(best) if line), key=lambda i: -best[i][1])  # type: ignore[index]
    scores = np.zeros(len(candidates))
    for ranking, weight in ((by_pictures, 1.0), (by_lines, LINE_WEIGHT)):
        scores[ranking] += weight / (RANK_CONSTANT + 1 + np.arange(len(ranking)))
    scores *= (RANK_CONSTANT + 1) / (1 + LINE_WEIGHT)
    found_lines = [line or (None, None) for line in best]
    marked = [
        replace(candidate, line=line, line_score=line_score, merged_score=float(score))
        for candidate, (line, line_score), score in zip(candidates, found_lines, scores, strict=True)
    ]
    return sorted(marked, key=lambda candidate: -(candidate.merged_score or 0.0))


def picture_rank(candidate: Candidate) -> tuple[bool, float]:
    """Return what sorts candidates by their pictures: every reranked one comes before all others."""
    score = candidate.rerank_score
    return score is None, -(candidate.embed_score if score is None else score)


def lines_near(spoken: SpokenLines, times_seconds: Sequence[float]) -> tuple[str, ...]:
    """Return the lines that are said near frames, each with its time: "[00:12] Good evening."

    Args:
        spoken: The lines of the video.
        times_seconds: The times of the frames. Without frames there are no lines.
    """
    times, left = np.array(times_seconds), MAX_CHARACTERS
    near = list[tuple[float, int]]()
    for i, line in enumerate(spoken.lines if len(times) else ()):
        distance = np.maximum(line.start_seconds - times, times - line.end_seconds).clip(min=0).min()
        if distance <= NEAR_SECONDS:
            near.append((float(distance), i))
    chosen = list[int]()
    for _, i in sorted(near):
        left -= len(spoken.lines[i].text)
        if left < 0:
            break
        chosen.append(i)
    return tuple(f"{prompts.timestamp(spoken.lines[i].start_seconds)} {spoken.lines[i].text}" for i in sorted(chosen))
