"""Made films with questions about them, in LVBench's layout: `videos/KEY.mp4` and `video_info.meta.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from lvqa import prompts
from lvqa.records import LETTERS, LvqaError, Question
from lvqa.tiny import language
from lvqa.tiny.world import ATTRIBUTES, HEIGHT, WIDTH, Scene, draw, random_scene

FRAMES_PER_SECOND = 8
SCENE_SECONDS = (8.0, 40.0)
MAX_MINUTES = 1440
MOST_MISSES = 20_000
"""So many draws in a row without a new question, and the film has none left."""
HELD_OUT_SEEDS = 900_000
"""Films of this seed and above are for evaluation alone: nothing is trained or tuned on them."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A scene's place in a film."""

    scene: Scene
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, slots=True)
class Film:
    """A film's script: what is true of it."""

    seed: int
    shots: tuple[Shot, ...]

    @property
    def duration_seconds(self) -> float:
        return self.shots[-1].end_seconds

    @property
    def key(self) -> str:
        """Its name in a benchmark's files."""
        return f"film{self.seed:06d}"


def write_script(seed: int, minutes: float) -> Film:
    """A film of shots of 8 to 40 seconds, the same for the same seed. Every cut lies on a frame."""
    rng = np.random.default_rng([seed, 1])
    shots: list[Shot] = []
    start, duration = 0.0, minutes * 60
    while start < duration:
        end = start + round(rng.uniform(*SCENE_SECONDS) * FRAMES_PER_SECOND) / FRAMES_PER_SECOND
        # A rest too short for a shot of its own goes to the last one.
        end = duration if duration - end < SCENE_SECONDS[0] else end
        shots.append(Shot(random_scene(rng), start, end))
        start = end
    return Film(seed, tuple(shots))


def ask_about(film: Film, num_questions: int) -> list[Question]:
    """Different questions about one shot each, which is the only one in the film that fits what the question says.

    Four options, one right. Raises LvqaError if the film is too short for so many.
    """
    rng = np.random.default_rng([film.seed, 2])
    asked: dict[str, Question] = {}
    misses = 0
    while len(asked) < num_questions and misses < MOST_MISSES:
        misses += 1
        shot = film.shots[int(rng.integers(len(film.shots)))]
        text, attribute, given = language.draw_question(rng, shot.scene, 3)
        if text not in asked and _is_unique(film, shot.scene, given):
            misses = 0
            right = shot.scene.value(attribute)
            options, place = language.draw_options(rng, right, attribute)
            asked[text] = Question(
                text=text,
                options=options,
                id=f"{film.seed}-{len(asked)}",
                video_id=film.key,
                answer=LETTERS[place],
                tags=(language.LABELS[attribute],),
                evidence_seconds=(shot.start_seconds, shot.end_seconds),
            )
    if len(asked) < num_questions:
        raise LvqaError(
            f"a film of {film.duration_seconds / 60:g} minutes has room for {len(asked)} questions, "
            f"{num_questions} were asked for; make it longer"
        )
    return list(asked.values())


def _is_unique(film: Film, scene: Scene, given: Sequence[str]) -> bool:
    return sum(all(shot.scene.value(a) == scene.value(a) for a in given) for shot in film.shots) == 1


def frames_of(film: Film) -> Iterator[np.ndarray]:
    """Every frame, (240, 320, 3) uint8, 8 a second."""
    for shot in film.shots:
        first = round(shot.start_seconds * FRAMES_PER_SECOND)
        for frame in range(first, round(shot.end_seconds * FRAMES_PER_SECOND)):
            yield draw(shot.scene, frame / FRAMES_PER_SECOND - shot.start_seconds)


def write_film(film: Film, path: Path, on_second: Callable[[], None] = lambda: None) -> None:
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
            for number, pixels in enumerate(frames_of(film)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
                if number % FRAMES_PER_SECOND == 0:
                    on_second()
            container.mux(stream.encode(None))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def make_films(
    folder: Path,
    *,
    num_films: int,
    minutes: float,
    num_questions: int,
    seed: int,
    on_second: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Films of seeds `seed`, `seed` + 1, ... with their questions under `folder`; one that is there is kept."""
    for name, value, least in (("films", num_films, 1), ("minutes", minutes, 1), ("questions", num_questions, 1)):
        if not value >= least:
            raise LvqaError(f"{name} must be {least} or more, got {value}")
    if minutes > MAX_MINUTES:
        raise LvqaError(f"minutes must be 1 to {MAX_MINUTES}, got {minutes}")
    if seed < 0:
        raise LvqaError(f"seed must be 0 or more, got {seed}")
    films = [write_script(seed + i, minutes) for i in range(num_films)]
    lines = [json.dumps(benchmark_line(film, ask_about(film, num_questions))) for film in films]
    paths = [folder / "videos" / f"{film.key}-{minutes:g}min.mp4" for film in films]
    try:
        (folder / "videos").mkdir(parents=True, exist_ok=True)
        for film, path in zip(films, paths, strict=True):
            if not path.exists():
                write_film(film, path, on_second)
        (folder / "video_info.meta.jsonl").write_text("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise LvqaError(f"cannot write films into {folder}: {error.strerror or error}") from error
    return paths


def benchmark_line(film: Film, questions: Sequence[Question]) -> dict[str, object]:
    """One line of LVBench's `video_info.meta.jsonl`."""
    minutes = film.duration_seconds / 60
    return {
        "key": f"{film.key}-{minutes:g}min",
        "type": "made film",
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
    return "-".join(prompts.timestamp(seconds).strip("[]") for seconds in (np.ceil(start), np.floor(end)))


__all__ = ["ATTRIBUTES", "HELD_OUT_SEEDS", "Film", "Shot", "ask_about", "make_films", "write_film", "write_script"]
