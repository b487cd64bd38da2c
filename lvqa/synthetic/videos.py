"""Made films with questions about them, in LVBench's layout: `videos/KEY.mp4` and `video_info.meta.jsonl`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np

from lvqa.records import LETTERS, LvqaError, Question
from lvqa.synthetic.questions import HELD_OUT_SEEDS, ask_about, clock
from lvqa.synthetic.script import FRAMES_PER_SECOND, Film, frames_of, write_script
from lvqa.synthetic.world import HEIGHT, WIDTH

MAX_MINUTES = 1440


def write_video(film: Film, path: Path, on_second: Callable[[], None] = lambda: None) -> None:
    """Encode as H.264 in MP4: written beside and renamed, so that a file that exists is whole."""
    import av

    beside = path.with_name(f".{path.name}.part")
    try:
        with av.open(str(beside), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"preset": "veryfast", "crf": "27", "g": "80"}
            stream.codec_context.thread_count = 1
            stream.time_base = Fraction(1, FRAMES_PER_SECOND)
            for number, pixels in enumerate(_ahead(frames_of(film))):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                if number % FRAMES_PER_SECOND == 0:
                    on_second()
            container.mux(stream.encode(None))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _ahead(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same frames, drawn in a thread while earlier ones are encoded."""
    with ThreadPoolExecutor(max_workers=1) as drawing:
        drawn = deque(drawing.submit(next, frames, None) for _ in range(FRAMES_PER_SECOND))
        while (frame := drawn.popleft().result()) is not None:
            drawn.append(drawing.submit(next, frames, None))
            yield frame


def make_videos(
    folder: Path,
    *,
    num_videos: int,
    minutes: float,
    num_questions: int,
    seed: int,
    on_second: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Films of seeds `seed`, `seed` + 1, ... with their questions under `folder`; one that is there is kept."""
    for name, value, least in (("videos", num_videos, 1), ("minutes", minutes, 1), ("questions", num_questions, 1)):
        if not value >= least:
            raise LvqaError(f"{name} must be {least} or more, got {value}")
    if minutes > MAX_MINUTES:
        raise LvqaError(f"minutes must be 1 to {MAX_MINUTES}, got {minutes}")
    if seed < 0:
        raise LvqaError(f"seed must be 0 or more, got {seed}")
    films = [write_script(seed + i, minutes) for i in range(num_videos)]
    lines = [json.dumps(benchmark_line(film, ask_about(film, num_questions))) for film in films]
    paths = [folder / "videos" / f"{film.key}-{minutes:g}min.mp4" for film in films]
    try:
        (folder / "videos").mkdir(parents=True, exist_ok=True)
        for film, path in zip(films, paths, strict=True):
            if not path.exists():
                write_video(film, path, on_second)
        (folder / "video_info.meta.jsonl").write_text("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise LvqaError(f"cannot write videos into {folder}: {error.strerror or error}") from error
    return paths


def benchmark_line(film: Film, questions: Sequence[Question]) -> dict[str, object]:
    """One line of LVBench's `video_info.meta.jsonl`."""
    minutes = film.duration_seconds / 60
    return {
        "key": f"{film.key}-{minutes:g}min",
        "type": "synthetic video",
        "qa": [
            {
                "uid": question.id,
                "question": question.text
                + "".join(f"\n({a}) {b}" for a, b in zip(LETTERS, question.options, strict=False)),
                "answer": question.answer,
                "question_type": list(question.tags),
                "time_reference": _reference(question),
            }
            for question in questions
        ],
        "video_info": {
            "duration_minutes": round(minutes, 2),
            "fps": FRAMES_PER_SECOND,
            "resolution": {"width": WIDTH, "height": HEIGHT},
        },
    }


def _reference(question: Question) -> str:
    """ "MM:SS-MM:SS", inside the evidence."""
    assert question.evidence_seconds is not None
    start, end = question.evidence_seconds
    return f"{clock(np.ceil(start))}-{clock(end)}"


__all__ = ["HELD_OUT_SEEDS", "ask_about", "make_videos", "write_script", "write_video"]
