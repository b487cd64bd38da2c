"""A run folder: `config.yaml` (resolved), `run.json` (where and with what), `answers.jsonl` (a row an answer).

Rows are appended one batch of questions after another, and never changed but for what a judge says of an open answer.
So a run that was killed goes on where it stopped. A line without its end is all that a kill leaves behind, and it
is cut off. A folder that lvqa 0.1 wrote is read, and never added to.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from lvqa.evaluation.changes import GROWING_SETTINGS, settings_changes
from lvqa.evaluation.judges import judge_rows, with_judge
from lvqa.evaluation.row_folder import CONFIG, RowFolder, check_inputs, locked, write_settings
from lvqa.evaluation.rows import ROWS, ROWS_FORMAT, Key, Row, is_unjudged, key_of
from lvqa.evaluation.run_info import RunInfo, note_session, read_info
from lvqa.evaluation.settings import Judge, JudgeModel, RunConfig, load_run_config
from lvqa.records import LvqaError, counted

_log = logging.getLogger(__name__)

ANSWERS = ROWS.name


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder holds."""

    folder: Path
    config: RunConfig
    about: RunInfo
    """What run.json holds; empty if there is none."""
    rows: tuple[Row, ...]

    @property
    def num_questions(self) -> int:
        """How many questions there are in all, those about missing videos not among them."""
        return self.about.get("questions") or 0

    @property
    def num_failed(self) -> int:
        """How many answers have failed."""
        return sum(row["error"] is not None for row in self.rows)

    @property
    def num_failed_by_place(self) -> int:
        """How many of them have failed by what the machines did."""
        return sum(row["by_place"] for row in self.rows)

    @property
    def num_unjudged(self) -> int:
        """How many answers to open questions wait for their judge."""
        return sum(map(is_unjudged, self.rows))

    @property
    def missing(self) -> tuple[str, ...]:
        """The dataset's videos that the run went on without."""
        return tuple(self.about.get("missing") or ())


def require_run(folder: Path) -> None:
    """Raise LvqaError if the folder is no run folder."""
    if (folder / "rankings.jsonl").is_file():
        raise LvqaError(f"{folder} is a run of lvqa retrieve: the same command again prints its tables")
    if not (folder / CONFIG).is_file():
        raise LvqaError(f"{folder} is not a run folder: it has no {CONFIG}; lvqa eval makes one")


def read_run(folder: Path) -> Run:
    """Return the run in a folder, as far as it is; one of lvqa 0.1 under the names of today.

    Raises:
        LvqaError: The folder is no run, or a line of it is not a row.
    """
    require_run(folder)
    rows = tuple(ROWS.read(folder / ANSWERS))
    about = read_info(folder) or cast(RunInfo, {})
    return Run(folder, load_run_config(folder / CONFIG, accept_old=True), about, rows)


class RunFolder(RowFolder[Row]):
    """A run folder that is being added to; made by `open_run`."""

    def __init__(self, folder: Path, answered: set[Key], *, judge: Judge | None, session: int) -> None:
        super().__init__(folder, ROWS, answered, session=session)
        self._judge = judge

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; open answers are judged where a rule does it."""
        super().append([with_judge(row, self._judge) for row in rows])

    def judge(self) -> int:
        """Have the open answers judged that no judge has spoken about, by a model. Returns how many stay so."""
        rows = {key_of(row): row for row in ROWS.read(self.folder / ANSWERS)}
        unjudged = [row for row in rows.values() if is_unjudged(row)]
        if unjudged and isinstance(self._judge, JudgeModel):
            _log.info("%s judges %s", self._judge.model, counted(len(unjudged), "answer"))
            try:
                for row in judge_rows(self._judge, unjudged):
                    rows[key_of(row)] = row
            finally:  # also where it is interrupted: each verdict costs a request
                self.close()
                ROWS.write(self.folder, rows.values())
                self.open()
        return sum(map(is_unjudged, rows.values()))

    def note_contents(self) -> None:
        """Note in run.json which content each video had that was answered about."""
        rows = ROWS.read(self.folder / ANSWERS)
        self.describe(content_ids={row["video_id"]: row["content_id"] for row in rows if row["content_id"]})


@contextlib.contextmanager
def open_run(
    folder: Path,
    config: RunConfig,
    *,
    retry_failed: bool = False,
    changes: Callable[[Sequence[Row]], Sequence[str]] = lambda _: (),
    files: Mapping[str, str] | None = None,
) -> Iterator[RunFolder]:
    """Open a run folder to add to it, a new one or one to go on with; no other process can add to it meanwhile.

    Arms and budgets may be added to a run. Answers that failed by what the machines did are taken out, so that they are
    asked again.

    Args:
        folder: The folder.
        config: The settings of the run.
        retry_failed: Take out all answers that failed.
        changes: Called with the rows that are there, before anything is written; returns what of their questions and
            videos has changed.
        files: The files beside the annotations that decide answers -> their digests.

    Raises:
        LvqaError: The run was begun with other settings, questions, videos or files (which are named) or by lvqa 0.1,
            another process is adding to it, or a line of it is not a row.
    """
    with locked(folder, ANSWERS):
        before = load_run_config(folder / CONFIG) if _has_settings(folder) else None
        changed = settings_changes(before, config) if before is not None else []
        if before is not None and not changed:
            check_inputs(folder, changes(list(ROWS.read(folder / ANSWERS))), files or {})
        write_settings(folder, before, config, GROWING_SETTINGS, changed)
        session = note_session(folder, config, files or {}, rows_format=ROWS_FORMAT)
        rows = ROWS.take_out_failed(folder, every=retry_failed)
        answered = {key_of(row) for row in rows}
        with contextlib.closing(RunFolder(folder, answered, judge=config.benchmark.judge, session=session)) as run:
            yield run


def _has_settings(folder: Path) -> bool:
    """Return whether a run was begun in the folder; LvqaError if its rows are of an older format."""
    if not (folder / CONFIG).exists():
        return False
    info = read_info(folder)
    if info is not None and info.get("rows_format") != ROWS_FORMAT:
        raise LvqaError(f"{folder} was begun by an older lvqa, which had other rows; take another folder")
    return True
