"""Make the README's pictures of an answer, docs/images/answer.png and answer-dark.png, and what `lvqa ask` printed.

    python scripts/make_readme_picture.py [FOLDER]

A synthetic video is made, indexed and asked about with the embedded model. FOLDER keeps the video and its index.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from lvqa import LongVideoQA
from lvqa.records import Answer, Question, Video
from lvqa.report.answers import clock, frames_by_clip
from lvqa.report.contact_sheet import COMPARISON_FRAMES_IN_A_ROW, Sheet, frames_text, pictures_of, rows_of_clips
from lvqa.report.timeline import DARK, LIGHT, Theme
from lvqa.synthetic.videos import ask_about, make_videos, write_script
from lvqa.video import inspect_video

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SEED, MINUTES, QUESTION, FRAMES = 2, 60, 4, 16
"""The video, and the index of the question among the first ones about it."""


def write_picture(path: Path, selected: Answer, uniform: Answer, video: Video, theme: Theme) -> None:
    """Write the question, the scores over time, the selected frames by clip, and the uniform frames."""
    question = selected.question
    assert question.evidence_seconds is not None and question.answer is not None
    start, end = question.evidence_seconds
    target = question.options[question.letters.index(question.answer)]
    sheet = Sheet(theme)
    sheet.add_text(question.text, size=14.5, height=0.3, weight="bold")
    truth = (
        f"A synthetic video of {MINUTES} minutes. Truth: {question.answer}. {target}, seen {clock(start)}-{clock(end)}"
    )
    sheet.add_text(truth, size=10.5, height=0.23, colour=theme.muted)
    sheet.add_timeline(selected, video, question.evidence_seconds, uniform)
    pictures = pictures_of(video, selected, uniform)
    sheet.add_text(frames_text(selected, question.evidence_seconds), size=11.5, height=0.34, weight="bold")
    for row in rows_of_clips(frames_by_clip(selected), COMPARISON_FRAMES_IN_A_ROW):
        sheet.add_clips(row, pictures, question.evidence_seconds, COMPARISON_FRAMES_IN_A_ROW)
    sheet.add_text(frames_text(uniform, question.evidence_seconds), size=11.5, height=0.34, weight="bold")
    sheet.add_frames(uniform.frames, pictures, question.evidence_seconds, COMPARISON_FRAMES_IN_A_ROW)
    sheet.write(path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def write_transcript(path: Path, video: Path, question: Question, store: Path) -> None:
    """Write the command that asks the question, and what it printed."""
    options = [word for option in question.options for word in ("--option", option)]
    words = ["ask", video.name, question.text, *options, "--model", "tiny"]
    command = [sys.executable, "-m", "lvqa.cli", *words, "--store", str(store), "--quiet"]
    result = subprocess.run(command, cwd=video.parent, capture_output=True, text=True, check=True)
    quoted = [f'"{word}"' if " " in word else word for word in words]
    path.write_text(f"$ lvqa {' '.join(quoted)}\n{result.stdout}", encoding="utf-8")


def main() -> None:
    """Make the video, ask, and write the pictures and the text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (parser.parse_args().folder or Path(temporary)).resolve()
        num_questions = QUESTION + 1
        (path,) = make_videos(folder, num_videos=1, minutes=MINUTES, num_questions=num_questions, seed=SEED)
        question = ask_about(write_script(SEED, MINUTES), num_questions)[QUESTION]
        store, video = folder / "store", inspect_video(path)
        qa = LongVideoQA.load("tiny", overrides=[f"store.folder={store}", f"selection.frames={FRAMES}"])
        uniform, selected = (qa.answer(path, question, method=method) for method in ("uniform", "freeret"))
        for name, theme in (("answer.png", LIGHT), ("answer-dark.png", DARK)):
            write_picture(IMAGES / name, selected, uniform, video, theme)
        write_transcript(IMAGES / "answer.txt", path, question, store)


if __name__ == "__main__":
    main()
