"""Evaluate the embedded model on held-out made films: `python scripts/evaluate_tiny.py`.

Every arm goes through the same `LongVideoQA.answer`. A row is appended to FOLDER/rows.jsonl as it is done, so that an
interrupted run goes on where it stopped; the tables are made from the rows. Films that are lacking are made. The counts
and seconds of a row are what that answer added: a question is reranked once, for its first budget.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from lvqa import LongVideoQA, LvqaError
from lvqa.config import load_config
from lvqa.records import Answer, Candidate, Question
from lvqa.tiny.films import HELD_OUT_SEEDS, ask_about, make_films, write_script

BUDGETS = (16, 32, 64)
DRAWS = 10_000
RECALL_AT = (1, 10, 50)
NO_BUDGET = 0

Row = dict[str, Any]
Key = tuple[str, str, str, str, int]


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to choose frames."""

    method: str
    reranker: str = "mcq"
    budgets: tuple[int, ...] = BUDGETS


ARMS = {
    "uniform": Arm("uniform"),
    "freeret": Arm("freeret"),
    "embedding only": Arm("freeret", reranker="none"),
    "oracle": Arm("oracle"),
    "blind": Arm("blind", budgets=(NO_BUDGET,)),
}


@dataclass(frozen=True, slots=True)
class FilmTask:
    """A film and what is asked about it."""

    path: Path
    questions: tuple[Question, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/evaluate_tiny"), help="films, indexes and rows")
    parser.add_argument("--films", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--questions", type=int, default=24, help="questions made for a film")
    parser.add_argument("--limit", type=int, help="ask only the first so many of them")
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEEDS, help="the first film's")
    parser.add_argument("--model", default="tiny", help="tiny, or a folder with other weights")
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit must be 1 or more, got {arguments.limit}")

    last_seed = arguments.seed + arguments.films - 1
    if last_seed >= HELD_OUT_SEEDS:
        print(f"held out: films {arguments.seed} to {last_seed} are for evaluation; tune nothing by these figures")
    try:
        tasks = list(film_tasks(arguments))
        run = Run(arguments.folder, model=arguments.model)
        run.ask_all(tasks)
    except LvqaError as error:
        parser.exit(1, f"{error}\n")
    print("\n" + tables(run.rows_about(tasks)))


def film_tasks(arguments: argparse.Namespace) -> Iterator[FilmTask]:
    """The films, made where they are lacking, with their questions."""
    paths = make_films(
        arguments.folder,
        num_films=arguments.films,
        minutes=arguments.minutes,
        num_questions=arguments.questions,
        seed=arguments.seed,
    )
    for number, path in enumerate(paths):
        film = write_script(arguments.seed + number, arguments.minutes)
        yield FilmTask(path, tuple(ask_about(film, arguments.questions)[: arguments.limit]))


# --- asking ---------------------------------------------------------------------------------------------------------


class Run:
    """The rows of a folder, and the model that adds to them."""

    def __init__(self, folder: Path, *, model: str) -> None:
        config = load_config(None, [f"model.name={model}"])
        config = dataclasses.replace(config, store=dataclasses.replace(config.store, folder=folder / "store"))
        self.file = folder / "rows.jsonl"
        self.rows = read_rows(self.file)
        first = LongVideoQA.load(config=config)
        bare = dataclasses.replace(config, rerank=dataclasses.replace(config.rerank, name="none"))
        self._by_reranker = {"mcq": first, "none": LongVideoQA(first.backbone, bare)}
        self._revision = first.backbone.revision

    def ask_all(self, tasks: Sequence[FilmTask]) -> None:
        """All arms over all questions, film by film, so that a film's tokens are used again."""
        started = time.perf_counter()
        for place, task in enumerate(tasks, 1):
            for question in task.questions:
                for arm, budget in cells():
                    if self._key(task, question, arm, budget) not in self.rows:
                        self._ask(task, question, arm, budget)
            print(f"film {place} of {len(tasks)}: {task.path.name}, {time.perf_counter() - started:.0f} s", flush=True)

    def rows_about(self, tasks: Sequence[FilmTask]) -> list[Row]:
        """The rows of these questions by this model."""
        keys = (
            self._key(task, question, arm, budget)
            for task in tasks
            for question in task.questions
            for arm, budget in cells()
        )
        return [self.rows[key] for key in keys if key in self.rows]

    def _key(self, task: FilmTask, question: Question, arm: str, budget: int) -> Key:
        return self._revision, task.path.stem, question.id, arm, budget

    def _ask(self, task: FilmTask, question: Question, arm: str, budget: int) -> None:
        key = self._key(task, question, arm, budget)
        row = dict(zip(KEY_FIELDS, key, strict=True)) | asked(question)
        qa = self._by_reranker[ARMS[arm].reranker]
        try:
            answer = qa.answer(task.path, question, frames=budget or 1, method=ARMS[arm].method)
        except LvqaError as error:
            row |= {"letter": None, "error": str(error)}
        else:
            row |= answered(answer)
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows[key] = row


KEY_FIELDS = ("model", "film", "question", "arm", "budget")


def cells() -> list[tuple[str, int]]:
    """All (arm, budget)."""
    return [(name, budget) for name, arm in ARMS.items() for budget in arm.budgets]


def read_rows(file: Path) -> dict[Key, Row]:
    """The rows by their keys. A line that an interruption cut off is removed from the file."""
    if not file.exists():
        return {}
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole)
    rows = [json.loads(line) for line in whole.splitlines()]
    return {tuple(row[name] for name in KEY_FIELDS): row for row in rows}  # type: ignore[misc]


def asked(question: Question) -> Row:
    """What a row says of its question."""
    return {"ability": question.tags[0], "right": question.answer, "evidence_seconds": question.evidence_seconds}


def answered(answer: Answer) -> Row:
    """What a row says of its answer."""
    span = answer.question.evidence_seconds
    assert span is not None
    by_embedding = sorted(answer.evidence, key=lambda candidate: -candidate.embed_score)
    return {
        "letter": answer.option,
        "option_scores": [round(score, 5) for score in answer.option_scores],
        "frames": answer.frames,
        "top": [
            (c.clip.start_seconds, c.clip.end_seconds, round(c.embed_score, 5), c.rerank_score)
            for c in answer.evidence[:5]
        ],
        "num_clips": len(answer.evidence),
        "num_fitting": sum(fits(candidate, span) for candidate in answer.evidence),
        "rank": rank(answer.evidence, span),
        "embed_rank": rank(by_embedding, span),
        "counts": dataclasses.asdict(answer.counts),
        "seconds": {stage: round(seconds, 4) for stage, seconds in answer.seconds.items()},
        "error": None,
    }


def fits(candidate: Candidate, span: tuple[float, float]) -> bool:
    """Whether a whole second of the annotated time starts in the clip: a frame of it can be shown."""
    start, end = max(candidate.clip.start_seconds, span[0]), min(candidate.clip.end_seconds, span[1])
    return math.ceil(start) < end


def rank(candidates: Sequence[Candidate], span: tuple[float, float]) -> int | None:
    """The place, from 1, of the first clip of the annotated time."""
    return next((place for place, candidate in enumerate(candidates, 1) if fits(candidate, span)), None)


# --- tables ---------------------------------------------------------------------------------------------------------


def tables(rows: Sequence[Row]) -> str:
    """All that is known from the rows, in Markdown."""
    errors = [row for row in rows if row["error"]]
    films = {row["film"] for row in rows}
    questions = {(row["film"], row["question"]) for row in rows}
    parts = [
        f"{len(questions)} questions on {len(films)} films; a failed answer counts as wrong ({len(errors)} failed).",
        "Accuracy in percent (95% interval by Wilson; n):",
        by_cell(rows, is_right),
        "Evidence recall: a shown frame lies in the annotated time, percent (95% interval; n):",
        by_cell([row for row in rows if row["arm"] != "blind"], shows_evidence),
        "freeret against uniform, paired:",
        paired_table(rows),
        "Accuracy at 16 frames by ability:",
        ability_table(rows),
        "Annotated time among the best clips, percent:",
        recall_table(rows),
    ]
    return "\n\n".join(parts + [f"failed: {row['question']} {row['arm']}: {row['error']}" for row in errors])


def is_right(row: Row) -> bool:
    return bool(row["letter"] == row["right"])


def shows_evidence(row: Row) -> bool:
    start, end = row["evidence_seconds"]
    return any(start <= seconds < end for seconds in row.get("frames", ()))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def share(hits: Sequence[bool]) -> str:
    """ "52.1 (45.8-58.3; 240)"."""
    if not hits:
        return "-"
    low, high = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return f"{100 * np.mean(hits):.1f} ({100 * low:.1f}-{100 * high:.1f}; {len(hits)})"


def by_cell(rows: Sequence[Row], test: Any) -> str:
    present = {row["arm"] for row in rows}
    lines = []
    for name, arm in ARMS.items():
        if name in present:
            values = [share([test(row) for row in of_cell(rows, name, budget)]) for budget in arm.budgets]
            lines.append([name, *values, *[""] * (len(BUDGETS) - len(values))])
    return table(["frames", *map(str, BUDGETS)], lines)


def of_cell(rows: Sequence[Row], arm: str, budget: int) -> list[Row]:
    return [row for row in rows if row["arm"] == arm and row["budget"] == budget]


def paired_table(rows: Sequence[Row]) -> str:
    lines = []
    for budget in BUDGETS:
        uniform = {(row["film"], row["question"]): is_right(row) for row in of_cell(rows, "uniform", budget)}
        pairs = [
            (row["film"], is_right(row), uniform[row["film"], row["question"]])
            for row in of_cell(rows, "freeret", budget)
            if (row["film"], row["question"]) in uniform
        ]
        if not pairs:
            continue
        gained, lost = sum(a and not b for _, a, b in pairs), sum(b and not a for _, a, b in pairs)
        p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        difference = 100 * (gained - lost) / len(pairs)
        interval = clustered_interval([(film, int(a) - int(b)) for film, a, b in pairs])
        lines.append([str(budget), f"{difference:+.1f}", interval, str(gained), str(lost), f"{p:.2g}", str(len(pairs))])
    head = ["frames", "difference, points", "95% by bootstrap over films", "gained", "lost", "McNemar's exact p", "n"]
    return table(head, lines)


def clustered_interval(differences: Sequence[tuple[str, int]]) -> str:
    """The 2.5th to 97.5th percentile of the mean difference, films drawn with replacement."""
    films = sorted({film for film, _ in differences})
    if len(films) < 2:
        return "one film"
    sums = np.array([sum(value for name, value in differences if name == film) for film in films])
    sizes = np.array([sum(name == film for name, _ in differences) for film in films])
    drawn = np.random.default_rng(0).integers(len(films), size=(DRAWS, len(films)))
    means = 100 * sums[drawn].sum(1) / sizes[drawn].sum(1)  # (draws,)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{low:+.1f} to {high:+.1f}"


def ability_table(rows: Sequence[Row]) -> str:
    lines = []
    for ability in sorted({row["ability"] for row in rows}):
        mine = [row for row in rows if row["ability"] == ability]
        values = [share([is_right(row) for row in of_cell(mine, arm, 16)]) for arm in ("uniform", "freeret")]
        lines.append([ability, *values])
    return table(["ability", "uniform", "freeret"], lines)


def recall_table(rows: Sequence[Row]) -> str:
    """Of the clips in the embedding's and in the reranked order; and by chance."""
    searched = [row for row in of_cell(rows, "freeret", BUDGETS[0]) if not row["error"]]
    if not searched:
        return "-"
    lines = []
    for name, field in (("embedding", "embed_rank"), ("reranked", "rank")):
        ranks = [row[field] or math.inf for row in searched]
        lines.append([name, *(share([place <= k for place in ranks]) for k in RECALL_AT)])
    chances = [np.mean([chance(row["num_clips"], row["num_fitting"], k) for row in searched]) for k in RECALL_AT]
    lines.append(["by chance", *(f"{100 * value:.1f}" for value in chances)])
    return table(["clips", *(f"best {k}" for k in RECALL_AT)], lines)


def chance(clips: int, fitting: int, k: int) -> float:
    """That k clips drawn by lot hold one of the fitting ones."""
    return 1 - math.comb(clips - fitting, k) / math.comb(clips, k) if k < clips else 1.0


if __name__ == "__main__":
    main()
