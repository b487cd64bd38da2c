"""Synthetic videos with questions, in LVBench's layout: `videos/KEY.mp4` and `video_info.meta.jsonl`."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np

from lvqa.records import LETTERS, SYNTHETIC_TAG, LvqaError, Question
from lvqa.synthetic.questions import HELD_OUT_SEEDS, ask_about, clock
from lvqa.synthetic.script import FRAMES_PER_SECOND, USUAL, Variety, VideoScript, iter_frames, write_script
from lvqa.synthetic.world import HEIGHT, WIDTH

MAX_MINUTES = 1440


def write_video(script: VideoScript, path: Path, on_second: Callable[[], None] = lambda: None) -> None:
    """Render a video and encode it as H.264 in MP4. The file appears when it is complete.

    Args:
        script: What the video shows.
        path: The file to write.
        on_second: Is called after each second of video.
    """
    import av

    tmp_path = path.with_name(f".{path.name}.part")
    try:
        with av.open(str(tmp_path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            container.metadata["comment"] = SYNTHETIC_TAG
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.options = {"preset": "veryfast", "crf": "27", "g": "80"}
            stream.codec_context.thread_count = 1
            stream.time_base = Fraction(1, FRAMES_PER_SECOND)
            for i, pixels in enumerate(_prefetch(iter_frames(script))):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                if i % FRAMES_PER_SECOND == 0:
                    on_second()
            container.mux(stream.encode(None))
        tmp_path.replace(path)
    finally:
        tmp_path.unlink(missing_ok=True)


def _prefetch(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same frames, which a thread renders while earlier ones are encoded."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        pending = deque(executor.submit(next, frames, None) for _ in range(FRAMES_PER_SECOND))
        while (frame := pending.popleft().result()) is not None:
            pending.append(executor.submit(next, frames, None))
            yield frame


def make_videos(
    folder: Path,
    *,
    num_videos: int,
    minutes: float,
    num_questions: int,
    seed: int,
    variety: Variety = USUAL,
    on_second: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write a dataset of synthetic videos with questions. A video file that exists is kept.

    Args:
        folder: Where the dataset goes; it is created if it is missing.
        num_videos: How many videos there are; their seeds are `seed`, `seed` + 1, ...
        minutes: The duration of each video, 1 to MAX_MINUTES.
        num_questions: How many questions there are about each video.
        seed: The random seed of the first video.
        variety: What is unusual about the videos; it is in their names.
        on_second: Is called after each second of video that is written.

    Returns:
        The video files.

    Raises:
        LvqaError: A number is out of range, the videos are too short for the questions, or the folder can't be written.
    """
    for name, value in (("videos", num_videos), ("minutes", minutes), ("questions", num_questions)):
        if not value >= 1:
            raise LvqaError(f"{name} must be 1 or more, got {value}")
    if minutes > MAX_MINUTES:
        raise LvqaError(f"minutes must be 1 to {MAX_MINUTES}, got {minutes}")
    if seed < 0:
        raise LvqaError(f"seed must be 0 or more, got {seed}")
    _check_variety(variety)
    scripts = [write_script(seed + i, minutes, variety) for i in range(num_videos)]
    lines = [json.dumps(annotation(script, ask_about(script, num_questions))) for script in scripts]
    paths = [folder / "videos" / f"{script.key}-{minutes:g}min.mp4" for script in scripts]
    try:
        (folder / "videos").mkdir(parents=True, exist_ok=True)
        for script, path in zip(scripts, paths, strict=True):
            if not path.exists():
                write_video(script, path, on_second)
        (folder / "video_info.meta.jsonl").write_text("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise LvqaError(f"cannot write videos into {folder}: {error.strerror or error}") from error
    return paths


def _check_variety(variety: Variety) -> None:
    shortest, longest = variety.take_seconds
    if not 2 <= shortest <= longest < float("inf"):
        allowed = "the shortest and the longest in seconds, the shortest at least 2"
        raise LvqaError(f"take_seconds must be {allowed}, got {shortest:g} and {longest:g}")
    if not 0 <= variety.lookalikes <= 10:
        raise LvqaError(f"lookalikes must be 0 to 10, got {variety.lookalikes:g}")


def annotation(script: VideoScript, questions: Sequence[Question]) -> dict[str, object]:
    """Return a video's line of LVBench's `video_info.meta.jsonl`."""
    minutes = script.duration_seconds / 60
    return {
        "key": f"{script.key}-{minutes:g}min",
        "type": "synthetic video",
        "qa": [
            {
                "uid": question.id,
                "question": "\n".join([question.text, *_option_lines(question)]),
                "answer": question.answer,
                "question_type": list(question.tags),
                "time_reference": _time_reference(question),
            }
            for question in questions
        ],
        "video_info": {
            "duration_minutes": round(minutes, 2),
            "fps": FRAMES_PER_SECOND,
            "resolution": {"width": WIDTH, "height": HEIGHT},
        },
    }


def _option_lines(question: Question) -> list[str]:
    """Return the options, each with its letter."""
    return [f"({letter}) {option}" for letter, option in zip(LETTERS, question.options, strict=False)]


def _time_reference(question: Question) -> str:
    """Return "MM:SS-MM:SS", whole seconds inside the evidence."""
    assert question.evidence_seconds is not None
    start, end = question.evidence_seconds
    return f"{clock(np.ceil(start))}-{clock(end)}"


__all__ = ["HELD_OUT_SEEDS", "ask_about", "make_videos", "write_script", "write_video"]
