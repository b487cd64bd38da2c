"""The door: `lvqa ask`, `search`, `index`, `make-film`, `demo`, `doctor`.

Exit codes: 0 done; 1 what the user can mend, as one line on stderr; 2 usage; 3 some items failed; 130 after Ctrl-C.
Results go to stdout, everything else to stderr. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import lvqa

if TYPE_CHECKING:
    from lvqa.config import Config
    from lvqa.pipeline import LongVideoQA
    from lvqa.records import Answer, Candidate, IndexUse, Question, Video

VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv", ".wmv"),
    *(".asf", ".ogv", ".mxf", ".3gp", ".vob", ".gif", ".nut", ".ivf"),
}
"""What counts as a video file inside a folder; a file named outright may be called anything."""

EVIDENCE_LINES = 5
TINY_WARNING = "the embedded model knows only the made world of these films; it says nothing about real ones"


# --- errors and progress ---------------------------------------------------------------------------------------------


def _one_line(text: object) -> str:
    """The text on one line, with whatever a terminal would act on written out."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def _say(text: object) -> None:
    click.echo(f"lvqa: {_one_line(text)}", err=True)


class _Door(click.Group):
    """Turns what the user can mend into one line, and leaves bugs their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            _say("interrupted")
            ctx.exit(130)
        except Exception as error:
            from lvqa.records import LvqaError

            if not isinstance(error, LvqaError):
                raise
            _say(error)
            ctx.exit(1)


STAGES = {"index": ("decode+index", "frames", 2), "rerank": ("rerank", "frames", 2), "film": ("make film", "s", 1)}
"""A stage of work -> what it is called, the unit, and how many units one step is: a pair is two frames."""

SECONDS_BETWEEN_LINES = 1.0


class _Progress:
    """A bar with a rate on a terminal, a line every tenth elsewhere, nothing if quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._stage, self._done = "", 0
        self._bar: Any = None
        self._started = self._said = 0.0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._quiet:
            return
        if stage != self._stage or done <= self._done:
            self._begin(stage, total)
        if self._bar is not None:
            self._bar.update(done - self._done)
        else:
            self._line(done, total)
        self._done = done
        if done == total:
            self._close()

    def _begin(self, stage: str, total: int) -> None:
        self._close()
        self._stage, self._done = stage, 0
        self._started = self._said = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            label, unit, scale = STAGES[stage]
            # A terminal that does not know its size says 0, and the bar would be empty.
            columns, lines = shutil.get_terminal_size()
            self._bar = tqdm(
                total=total, desc=label, unit=f" {unit}", unit_scale=scale, file=sys.stderr, ncols=columns, nrows=lines
            )

    def _line(self, done: int, total: int) -> None:
        now = time.monotonic()
        tenth = done * 10 // total > self._done * 10 // total
        if done < total and not (tenth and now - self._said >= SECONDS_BETWEEN_LINES):
            return
        self._said = now
        label, unit, scale = STAGES[self._stage]
        rate = done * scale / max(now - self._started, 1e-3)
        _say(f"{label} {done * 100 // total}% ({done * scale} of {total * scale} {unit}, {rate:.0f} {unit}/s)")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage, self._done = None, "", 0


class _LogLines(logging.Handler):
    """What the rooms log, as lines like the door's own."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


# --- what all commands share -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setup:
    """The common options, as given."""

    file: Path | None
    settings: tuple[str, ...]
    model: str | None
    store: Path | None
    device: str | None
    quiet: bool

    def config(self) -> Config:
        """Defaults, then the file, then -s, then the options: the later one counts."""
        from lvqa.config import load_config

        config = load_config(self.file, self.settings)
        if self.model is not None:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, name=self.model))
        if self.device is not None:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, device=self.device))
        if self.store is not None:
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=self.store))
        return config

    def embedded_config(self, store: Path | None = None) -> Config:
        """The same, but with the embedded model, and this store, unless the user named others."""
        from lvqa.config import Config

        config = self.config()
        if config.model.name == Config().model.name:
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, name="tiny"))
        if config.store.folder is None:
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=store))
        return config

    @contextlib.contextmanager
    def loaded(self, config: Config) -> Iterator[LongVideoQA]:
        """The model behind the settings, with progress shown. The settings are checked before anything is loaded."""
        from lvqa.pipeline import LongVideoQA, check_settings

        check_settings(config)
        _silence(downloads=sys.stderr.isatty() and not self.quiet)
        with _Progress(quiet=self.quiet) as progress:
            yield LongVideoQA.load(config=config, progress=progress)


def _silence(*, downloads: bool) -> None:
    """No bar and no chatter from the libraries, but for the bars of downloads where they are wanted."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    importlib.import_module("lvqa.backbones.checkpoint").hide_bars(but_downloads=downloads)


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of every command that loads a model; they arrive as one _Setup."""

    @click.option("-c", "file", metavar="FILE", type=click.Path(path_type=Path), help="Settings, a YAML file.")
    @click.option("-s", "settings", metavar="KEY=VALUE", multiple=True, help="One setting; may be repeated.")
    @click.option("--model", metavar="ID|DIR|tiny", help="A hub id, a folder, or the embedded model.")
    @click.option("--store", metavar="DIR", type=click.Path(path_type=Path), help="Where indexes are kept.")
    @click.option("--device", metavar="NAME", help='As torch names it: "cpu", "cuda:0".')
    @click.option("--quiet", is_flag=True, help="No progress, no remarks.")
    @functools.wraps(command)
    def with_setup(
        *,
        file: Path | None,
        settings: tuple[str, ...],
        model: str | None,
        store: Path | None,
        device: str | None,
        quiet: bool,
        **own: Any,
    ) -> None:
        logging.getLogger("lvqa").setLevel(logging.WARNING if quiet else logging.INFO)
        setup = _Setup(file=file, settings=settings, model=model, store=store, device=device, quiet=quiet)
        command(setup, **own)

    return with_setup


@click.group(cls=_Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lvqa.__version__, prog_name="lvqa")
def door() -> None:
    """Ask questions about hours of video. One model finds the moments that matter, and answers from them."""
    logger, handler = logging.getLogger("lvqa"), _LogLines()
    logger.addHandler(handler)
    click.get_current_context().call_on_close(lambda: logger.removeHandler(handler))


def main() -> None:
    """What the command `lvqa` runs."""
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's coding lacks is written out
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        door(prog_name="lvqa")
    except SystemExit as end:
        if any(thread.name == "lvqa-decode" for thread in threading.enumerate()):
            # A decoder hangs. The interpreter would wait for it if it holds a lock; nothing of ours is unwritten.
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise


# --- ask -------------------------------------------------------------------------------------------------------------


@door.command()
@click.argument("video", type=click.Path(path_type=Path))
@click.argument("question")
@click.option("--option", "options", metavar="TEXT", multiple=True, help="One possible answer; two to twenty, or none.")
@click.option("--frames", type=int, help="How many frames the answer may look at.  [default: 16]")
@click.option("--method", help="How they are chosen: freeret, topk, uniform, random.  [default: freeret]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--report", metavar="F.html", type=click.Path(path_type=Path), help="Write a page with the frames.")
@_common
def ask(
    setup: _Setup,
    *,
    video: Path,
    question: str,
    options: tuple[str, ...],
    frames: int | None,
    method: str | None,
    as_json: bool,
    report: Path | None,
) -> None:
    """Answer QUESTION about VIDEO, with the evidence: when, how sure, which frames."""
    from lvqa.records import Question

    config = setup.config()
    if frames is not None:
        config = dataclasses.replace(config, selection=dataclasses.replace(config.selection, frames=frames))
    if method is not None:
        config = dataclasses.replace(config, method=method)
    asked = Question(question, options)
    probed = _checked(video, asked)
    started = time.perf_counter()
    with setup.loaded(config) as qa:
        load_seconds = time.perf_counter() - started
        answer = qa.answer(video, asked)
    answer = dataclasses.replace(answer, seconds={"load": load_seconds, **answer.seconds})
    evidence = _looked_at(answer, config)
    if report is not None:
        from lvqa.report import write_page

        write_page(report, answer, probed, evidence=evidence)
    if as_json:
        _print_json(_answer_json(answer, evidence))
    else:
        click.echo(_answer_text(answer, evidence))


def _checked(path: Path, question: Question) -> Video:
    """The probed video. What is wrong with it or the question is said before a model is loaded."""
    from lvqa.pipeline import check_question
    from lvqa.video import probe

    check_question(question)
    return probe(path)


def _looked_at(answer: Answer, config: Config) -> tuple[Candidate, ...]:
    """The candidates that were reranked; without reranking as many of the best."""
    reranked = tuple(candidate for candidate in answer.evidence if candidate.rerank_score is not None)
    return reranked or answer.evidence[: config.rerank.pool]


def _candidate_json(candidate: Candidate) -> dict[str, object]:
    return {
        "start_seconds": candidate.clip.start_seconds,
        "end_seconds": candidate.clip.end_seconds,
        "embed_score": candidate.embed_score,
        "rerank_score": candidate.rerank_score,
    }


def _answer_json(answer: Answer, evidence: Sequence[Candidate]) -> dict[str, object]:
    use = answer.index
    index = use and {"reused": use.reused, "clips": use.clips, "path": None if use.path is None else str(use.path)}
    return {
        "question": answer.question.text,
        "answer": answer.text,
        "option": answer.option,
        "option_scores": answer.option_scores,
        "model": answer.model,
        "method": answer.method,
        "frames_budget": answer.frames_budget,
        "frames": [{"time_seconds": seconds} for seconds in answer.frames],
        "evidence": [_candidate_json(candidate) for candidate in evidence],
        "index": index,
        "counts": dataclasses.asdict(answer.counts),
        "seconds": {stage: round(seconds, 4) for stage, seconds in answer.seconds.items()},
    }


def _print_json(value: dict[str, object]) -> None:
    """One line. JSON knows no NaN, so such a number is null; all that is not ASCII is escaped."""
    click.echo(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _candidate_line(candidate: Candidate) -> str:
    from lvqa.report import span_text

    rerank = "" if candidate.rerank_score is None else f"  rerank {candidate.rerank_score:.2f}"
    return f"{span_text(candidate)}  embed {candidate.embed_score:.2f}{rerank}"


def _answer_text(answer: Answer, evidence: Sequence[Candidate]) -> str:
    from lvqa.report import clock

    said = _one_line(answer.text) or "(the model gave an empty answer)"
    lines = [said if answer.option is None else f"{answer.option}. {said}"]
    if answer.option_scores:
        scores = zip(answer.question.letters, answer.option_scores, strict=True)
        lines += ["", "options   " + "  ".join(f"{letter} {score:.2f}" for letter, score in scores)]
    for place, candidate in enumerate(evidence[:EVIDENCE_LINES]):
        lines += [("evidence  " if place == 0 else " " * 10) + _candidate_line(candidate)]
    fewer = 0 < len(answer.frames) < answer.frames_budget
    shown = f"{len(answer.frames)} (the video has no more)" if fewer else str(len(answer.frames))
    lines += [f"frames    {shown}: " + " ".join(map(clock, answer.frames))]
    counts, use = answer.counts, answer.index
    index = "" if use is None else f"; index of {use.clips} clips {'reused' if use.reused else 'made'}"
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in answer.seconds.items() if seconds >= 0.05)
    lines += [
        f"cost      {counts.frames_decoded} frames decoded, {counts.pairs_encoded} pairs encoded, "
        f"{counts.tokens_prefilled} tokens{index}; {sum(answer.seconds.values()):.1f} s ({stages})"
    ]
    return "\n".join(lines)


# --- search and index ------------------------------------------------------------------------------------------------


@door.command()
@click.argument("video_and_query", nargs=-1, required=True, metavar="[VIDEO] QUERY")
@click.option("--library", is_flag=True, help="Search all videos that were indexed with this model and these settings.")
@click.option("--top", type=int, default=5, show_default=True, help="How many moments to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_common
def search(setup: _Setup, *, video_and_query: tuple[str, ...], library: bool, top: int, as_json: bool) -> None:
    """Find the moments of VIDEO, or of the whole library, that fit QUERY best."""
    if len(video_and_query) != (1 if library else 2):
        given = len(video_and_query)
        raise click.UsageError(f"search takes VIDEO QUERY, or --library QUERY; got {given} words; quote a long query")
    from lvqa.pipeline import check_count, check_question
    from lvqa.records import Question

    query = video_and_query[-1]
    config = setup.config()
    check_count(top, name="top")
    found: list[tuple[Path | None, Candidate]]
    if library:
        check_question(Question(query))
        with setup.loaded(config) as qa:
            found = [(index.video_path, candidate) for index, candidate in qa.search_library(query, top=top)]
    else:
        probed = _checked(Path(video_and_query[0]), Question(query))
        with setup.loaded(config) as qa:
            found = [(probed.path, candidate) for candidate in qa.search(probed.path, query, top=top)]
    if as_json:
        results = [{"path": None if path is None else str(path), **_candidate_json(c)} for path, c in found]
        _print_json({"query": query, "model": config.model.name, "results": results})
        return
    for path, candidate in found:
        click.echo(_candidate_line(candidate) + (f"  {_one_line(path)}" if library else ""))


@door.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH ...", type=click.Path(path_type=Path))
@click.option("--rebuild", is_flag=True, help="Make it anew, even if there is one; mends a damaged index.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a file.")
@_common
def index(setup: _Setup, *, paths: tuple[Path, ...], rebuild: bool, as_json: bool) -> None:
    """Index video files, or all video files in folders, so that later questions start at once."""
    from lvqa.records import LvqaError
    from lvqa.video import probe

    config = setup.config()
    videos, failures = _videos_in(paths)
    num_items = len(videos) + len(failures)
    if num_items == len(videos) == 1:
        probe(videos[0])  # before the model is loaded
    if videos:
        with setup.loaded(config) as qa:
            for path in videos:
                try:
                    _index_one(qa, path, rebuild=rebuild, as_json=as_json)
                except LvqaError as error:
                    failures.append((path, str(error)))
                    _say(error)
    for path, message in failures:
        if as_json:
            _print_json({"path": str(path), "error": message})
    if failures:
        click.get_current_context().exit(1 if len(failures) == num_items else 3)


def _videos_in(paths: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files that are meant, in order, and the folders in which there is none."""
    videos: list[Path] = []
    failures: list[tuple[Path, str]] = []
    for path in paths:
        if not path.is_dir():
            videos.append(path)
            continue
        try:
            held = sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
        except OSError as error:
            held = []
            message = f"{path}: {error.strerror}"
        else:
            message = f"{path}: this folder holds no video file; looked for {', '.join(sorted(VIDEO_SUFFIXES))}"
        videos += held
        if not held:
            failures.append((path, message))
            _say(message)
    return videos, failures


def _index_one(qa: LongVideoQA, path: Path, *, rebuild: bool, as_json: bool) -> None:
    started = time.perf_counter()
    use: IndexUse = qa.index(path, rebuild=rebuild)
    seconds = time.perf_counter() - started
    if as_json:
        told: dict[str, object] = {"path": str(path), "reused": use.reused, "clips": use.clips, "index": str(use.path)}
        _print_json({**told, "seconds": round(seconds, 4), "error": None})
    else:
        done = "already indexed" if use.reused else f"indexed in {seconds:.1f} s"
        click.echo(f"{_one_line(path)}: {use.clips} clips, {done}")


# --- made films ------------------------------------------------------------------------------------------------------


def _make_films(
    folder: Path, *, num_films: int, minutes: float, num_questions: int, seed: int, quiet: bool
) -> list[Path]:
    from lvqa.tiny.films import make_films

    seconds = 0
    with _Progress(quiet=quiet) as progress:

        def on_second() -> None:
            nonlocal seconds
            seconds += 1
            progress("film", seconds, max(seconds, math.ceil(minutes * 60) * num_films))

        return make_films(
            folder, num_films=num_films, minutes=minutes, num_questions=num_questions, seed=seed, on_second=on_second
        )


@door.command("make-film")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--films", type=int, default=1, show_default=True, help="How many.")
@click.option("--minutes", type=float, default=60, show_default=True, help="How long each.")
@click.option("--questions", type=int, default=20, show_default=True, help="How many about each.")
@click.option("--seed", type=int, default=0, show_default=True, help="The first film's; 900000 and above is held out.")
@click.option("--quiet", is_flag=True, help="No progress.")
def make_film(*, folder: Path, films: int, minutes: float, questions: int, seed: int, quiet: bool) -> None:
    """Make films with questions about them, in LVBench's layout: DIR/videos and DIR/video_info.meta.jsonl."""
    paths = _make_films(folder, num_films=films, minutes=minutes, num_questions=questions, seed=seed, quiet=quiet)
    for path in paths:
        click.echo(_one_line(path))


DEMO_QUESTIONS, DEMO_FRAMES = 4, 16


@door.command()
@click.option("--minutes", type=float, default=20, show_default=True, help="How long the film is.")
@click.option("--folder", type=click.Path(path_type=Path), default="demo", show_default=True, help="For all of it.")
@click.option("--seed", type=int, default=1, show_default=True, help="Which film; below 900000.")
@_common
def demo(setup: _Setup, *, minutes: float, folder: Path, seed: int) -> None:
    """Make a film, index it, and ask it questions with uniform and with chosen frames, on the embedded model."""
    from lvqa.records import LvqaError
    from lvqa.tiny.films import HELD_OUT_SEEDS, ask_about, write_script

    if not 0 <= seed < HELD_OUT_SEEDS:
        raise LvqaError(f"seed must be 0 to {HELD_OUT_SEEDS - 1} in a demo (the rest is held out), got {seed}")
    config = setup.embedded_config(store=folder / "store")
    (film,) = _make_films(
        folder, num_films=1, minutes=minutes, num_questions=DEMO_QUESTIONS, seed=seed, quiet=setup.quiet
    )
    questions = ask_about(write_script(seed, minutes), DEMO_QUESTIONS)
    click.echo(f"film      {_one_line(film)}, {minutes:g} minutes, made")
    with setup.loaded(config) as qa:
        started = time.perf_counter()
        use = qa.index(film)
        done = "found in the store" if use.reused else f"made in {time.perf_counter() - started:.0f} s"
        click.echo(f"index     {use.clips} clips, {done}")
        click.echo(f"model     {config.model.name}" + (f": {TINY_WARNING}" if config.model.name == "tiny" else ""))
        pairs = [_demo_question(qa, film, number, question) for number, question in enumerate(questions, 1)]
    rights = [sum(_is_right(pair[arm]) for pair in pairs) for arm in (0, 1)]
    click.echo(
        f"\nright at {DEMO_FRAMES} frames: uniform {rights[0]} of {len(pairs)}, freeret {rights[1]} of {len(pairs)}"
        f" (guessing: 1 of 4; {len(pairs)} questions show how it works, not how well)"
    )
    _demo_picture(folder / "demo.png", film, [pair[1] for pair in pairs])


def _demo_question(qa: LongVideoQA, film: Path, number: int, question: Question) -> tuple[Answer, Answer]:
    """The answers from uniform and from chosen frames, told as they come."""
    from lvqa.prompts import options
    from lvqa.report import clock, span_text

    assert question.evidence_seconds is not None and question.answer is not None
    start, end = question.evidence_seconds
    right = question.options[question.letters.index(question.answer)]
    click.echo(f"\n{number}. {question.text}\n   {options(question.options).replace(chr(10), '   ')}")
    click.echo(f"   truth    {question.answer}. {right}, seen {clock(start)}-{clock(end)}")
    answers = [qa.answer(film, question, frames=DEMO_FRAMES, method=method) for method in ("uniform", "freeret")]
    for answer in answers:
        best = ", ".join(map(span_text, answer.evidence[:3]))
        click.echo(
            f"   {answer.method:8} {answer.option}. {answer.text:8} {'right' if _is_right(answer) else 'wrong'}"
            f"   {_num_inside(answer):2} of {len(answer.frames)} frames there" + (f"; evidence {best}" if best else "")
        )
    return answers[0], answers[1]


def _is_right(answer: Answer) -> bool:
    return answer.option == answer.question.answer


def _num_inside(answer: Answer) -> int:
    """How many of the frames lie where the answer is."""
    assert answer.question.evidence_seconds is not None
    start, end = answer.question.evidence_seconds
    return sum(start <= seconds < end for seconds in answer.frames)


def _demo_picture(path: Path, film: Path, answers: Sequence[Answer]) -> None:
    """Of the question that shows most: answered rightly, and with most frames from where the answer is."""
    from lvqa.report import clock, write_contact_sheet
    from lvqa.video import probe

    place = max(range(len(answers)), key=lambda place: (_is_right(answers[place]), _num_inside(answers[place])))
    answer = answers[place]
    assert answer.question.evidence_seconds is not None
    start, end = answer.question.evidence_seconds
    verdict = "right" if _is_right(answer) else f"wrong, it is {answer.question.answer}"
    write_contact_sheet(
        path,
        answer,
        probe(film),
        title=f"{place + 1}. {answer.question.text}",
        subtitle=f"{answer.option}. {answer.text} ({verdict}); seen {clock(start)}-{clock(end)}",
        truth_seconds=(start, end),
    )
    click.echo(f"picture   {_one_line(path)} (question {place + 1})")


# --- doctor ----------------------------------------------------------------------------------------------------------

LIBRARIES = {
    "torch": ("torch", True),
    "transformers": ("transformers", True),
    "av": ("av", True),
    "faiss": ("faiss-cpu", True),
    "pyarrow": ("pyarrow", True),
    "cv2": ("opencv-python-headless", True),
    "decord": ("decord", False),
    "ray": ("ray", False),
}
"""Module -> the package it comes from, and whether asking a question needs it."""

ROOMY_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Finding:
    """One line of the doctor's: `essential` says whether a question can be asked without it."""

    name: str
    told: str
    healthy: bool = True
    essential: bool = False


@door.command()
@_common
def doctor(setup: _Setup) -> None:
    """Check what lvqa needs: libraries, GPU, store, disk, and that the embedded model answers."""
    config = setup.embedded_config()
    _silence(downloads=False)
    broken = False
    for finding in _findings(setup, config):
        word = "ok" if finding.healthy else "broken" if finding.essential else "warning"
        broken = broken or word == "broken"
        click.echo(f"{word:8} {finding.name:13} {_one_line(finding.told)}")
    if broken:
        click.get_current_context().exit(1)


def _findings(setup: _Setup, config: Config) -> Iterator[_Finding]:
    yield _Finding("lvqa", f"{lvqa.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for module, (package, essential) in LIBRARIES.items():
        yield _library_finding(module, package, essential=essential)
    yield from _processor_findings()
    yield from _store_findings(config)
    yield _model_finding(setup, config)


def _library_finding(module: str, package: str, *, essential: bool) -> _Finding:
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a broken library may raise anything; that is what the doctor is for
        return _Finding(module, f"cannot be imported: {type(error).__name__}: {error}", False, essential)
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # the GPU build has another name
        version = str(getattr(loaded, "__version__", "of unknown version"))
    return _Finding(module, version)


def _processor_findings() -> Iterator[_Finding]:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    yield _Finding("CPU", f"{torch.get_num_threads()} threads of {os.cpu_count()} processors")
    if not torch.cuda.is_available():
        yield _Finding("GPU", "none: the embedded model runs well without, one of 3B or 7B is slow", healthy=False)
    for place in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(place)
        yield _Finding("GPU", f"cuda:{place}, {card.name}, {card.total_memory / 2**30:.0f} GiB")


def _store_findings(config: Config) -> Iterator[_Finding]:
    from lvqa.index import Store, default_store
    from lvqa.records import LvqaError

    folder = (config.store.folder or default_store()).expanduser().absolute()
    try:
        Store(folder).prepare()
    except LvqaError as error:
        yield _Finding("store", str(error), healthy=False, essential=True)
    else:
        yield _Finding("store", f"{folder} can be written")
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    yield _Finding("disk", f"{free / 2**30:.1f} GiB free at {there}", healthy=free >= ROOMY_BYTES)


def _model_finding(setup: _Setup, config: Config) -> _Finding:
    """Writes a film of a minute and asks the model about it: encoder, decoder, index, model."""
    name = config.model.name
    try:
        from lvqa.tiny.films import ask_about, write_film, write_script

        with tempfile.TemporaryDirectory(prefix="lvqa-doctor-") as folder:
            film, script = Path(folder) / "film.mp4", write_script(0, 1)
            (question,) = ask_about(script, 1)
            write_film(script, film)
            config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=Path(folder)))
            started = time.perf_counter()
            with dataclasses.replace(setup, quiet=True).loaded(config) as qa:
                loaded = time.perf_counter()
                answer = qa.answer(film, question)
            asked = time.perf_counter()
        times = f"loaded in {loaded - started:.1f} s, answered {answer.option} from a film of a minute in"
        return _Finding("model", f"{name} {times} {asked - loaded:.1f} s")
    except Exception as error:  # whatever it is, the doctor names it
        return _Finding("model", f"{name} does not answer: {type(error).__name__}: {error}", False, essential=True)


if __name__ == "__main__":
    main()
