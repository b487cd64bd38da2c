"""Draw where the frames of uniform sampling, FreeRet and method apportion lie: docs/images/selections.png and -dark.

    python scripts/draw_selections.py [FOLDER]

The questions are about a synthetic video of the seeds for tuning. FOLDER keeps the video and its index.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from lvqa import LongVideoQA
from lvqa.records import Answer, Question
from lvqa.report import clock
from lvqa.report.timeline import DARK, LIGHT, Theme
from lvqa.synthetic.videos import ask_about, make_videos, write_script

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SEED, MINUTES, FRAMES = 702, 60, 32
METHODS = ("uniform", "freeret", "apportion")


def questions_of(seed: int, minutes: int) -> list[tuple[str, Question]]:
    """Return a question about one moment, one that names a time, and one about what comes after something."""
    questions = ask_about(write_script(seed, minutes), 35)
    named = next(q for q in questions if "temporal grounding" in q.tags and len(q.tags) == 2)
    after = next(q for q in questions if "reasoning" in q.tags)
    moment = next(q for q in questions if q.tags == ("entity recognition",))
    return [("One moment", moment), ("A named time", named), ("What comes after", after)]


def draw_question(axes: Axes, title: str, question: Question, answers: dict[str, Answer], theme: Theme) -> None:
    """Draw the scores of the clips, and below them the frames of each method."""
    clips = sorted(answers["freeret"].evidence, key=lambda candidate: candidate.clip.start_seconds)
    times = [candidate.clip.start_seconds / 60 for candidate in clips]
    scores = [candidate.rerank_score or 0.0 for candidate in clips]
    axes.fill_between(times, scores, step="post", color=theme.rerank, alpha=0.35, linewidth=0)
    assert question.evidence_seconds is not None
    start, end = question.evidence_seconds
    axes.axvspan(start / 60 - 0.15, end / 60 + 0.15, color=theme.inside, alpha=0.3, linewidth=0)
    for row, answer in enumerate(answers.values()):
        is_right = answer.option == question.answer
        minutes = [seconds / 60 for seconds in answer.frames]
        axes.plot(minutes, [-0.35 - 0.3 * row] * len(minutes), "|", markersize=9, color=theme.text)
        axes.text(MINUTES + 0.6, -0.35 - 0.3 * row, "right" if is_right else "wrong", va="center", color=theme.text)
    axes.set_yticks([0.5, *(-0.35 - 0.3 * row for row in range(len(answers)))], ["score", *answers])
    axes.tick_params(colors=theme.text, length=0)
    axes.set_title(f"{title} ({clock(start)}-{clock(end)}): {question.text}", loc="left", fontsize=9, color=theme.text)
    axes.set(xlim=(0, MINUTES), ylim=(-1.15, 1.05), facecolor="none")
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw(path: Path, answers: list[tuple[str, Question, dict[str, Answer]]], theme: Theme) -> None:
    """Write the picture."""
    figure, rows = plt.subplots(len(answers), 1, figsize=(9, 6), sharex=True, layout="constrained")
    figure.patch.set_facecolor(theme.background)
    for axes, (title, question, of_methods) in zip(rows, answers, strict=True):
        draw_question(axes, title, question, of_methods, theme)
    rows[-1].set_xlabel("minutes", color=theme.text)
    figure.savefig(path, dpi=110, facecolor=theme.background)
    plt.close(figure)


def main() -> None:
    """Make the video, ask, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    with tempfile.TemporaryDirectory() as temporary:
        folder = parser.parse_args().folder or Path(temporary)
        (video,) = make_videos(folder, num_videos=1, minutes=MINUTES, num_questions=35, seed=SEED)
        qa = LongVideoQA.load("tiny", overrides=[f"store.folder={folder / 'store'}"])
        answers = [
            (title, question, {method: qa.answer(video, question, method=method, frames=FRAMES) for method in METHODS})
            for title, question in questions_of(SEED, MINUTES)
        ]
    for name, theme in (("selections.png", LIGHT), ("selections-dark.png", DARK)):
        draw(IMAGES / name, answers, theme)


if __name__ == "__main__":
    main()
