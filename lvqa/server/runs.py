"""Runs of `lvqa eval`: which there are, and their rows."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from lvqa.evaluation import Run, read_run
from lvqa.evaluation.filters import RowFilter, confidence_of, evidence_of
from lvqa.evaluation.rows import is_correct
from lvqa.output import finite
from lvqa.records import FileKey, file_key, shorten
from lvqa.server.errors import ApiError
from lvqa.server.schemas import RowQuery
from lvqa.server.state import state_of

router = APIRouter(prefix="/api/runs", tags=["runs"])

MAX_OPEN_RUNS = 4
"""The rows of so many runs stay in memory."""


class Runs:
    """The runs in the folders that were named. A run that grows is read again."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self._open: OrderedDict[Path, tuple[FileKey, Run]] = OrderedDict()

    def names(self) -> dict[str, Path]:
        """Return the name of each run, and its folder; of two with one name the second gets a number."""
        names: dict[str, Path] = {}
        for folder in self._folders:
            runs = [folder] if _is_run(folder) else sorted(path for path in folder.iterdir() if _is_run(path))
            for path in runs:
                name, number = path.resolve().name, 1
                while (known := name if number == 1 else f"{name} ({number})") in names:
                    number += 1
                names[known] = path
        return names

    def read(self, name: str) -> Run:
        """Return a run as it is now."""
        folder = self.names().get(name)
        if folder is None:
            raise ApiError(404, f"there is no run {shorten(name)}; lvqa serve --runs DIR names them")
        key = file_key(folder / "answers.jsonl")
        if folder not in self._open or self._open[folder][0] != key:
            self._open[folder] = (key, read_run(folder))
        self._open.move_to_end(folder)
        while len(self._open) > MAX_OPEN_RUNS:
            self._open.popitem(last=False)
        return self._open[folder][1]


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "answers.jsonl").is_file()


@router.get("")
async def list_runs(request: Request) -> dict[str, Any]:
    """Return the names of all runs, and their folders."""
    names = await asyncio.to_thread(_runs(request).names)
    return {"runs": [{"name": name, "folder": str(path)} for name, path in names.items()]}


@router.get("/{name}")
async def get_run(request: Request, name: str) -> dict[str, Any]:
    """Return what a run is about: its arms and budgets, how many rows it has, with what it was made."""
    run = await asyncio.to_thread(_runs(request).read, name)
    conditions = dict.fromkeys((row["arm"], row["budget"]) for row in run.rows)
    return finite(  # type: ignore[no-any-return]
        {
            "name": name,
            "num_rows": len(run.rows),
            "num_questions": run.num_questions,
            "num_failed": run.num_failed,
            "conditions": [{"arm": arm, "budget": budget} for arm, budget in conditions],
            "tags": sorted({tag for row in run.rows for tag in row["tags"]}),
            "about": dict(run.about),
        }
    )


@router.get("/{name}/rows")
async def list_rows(request: Request, name: str, query: Annotated[RowQuery, Query()]) -> dict[str, Any]:
    """Return the rows of a run that match, a page of them; each with what follows from it."""

    def work() -> dict[str, Any]:
        filters = query.model_dump(exclude={"offset", "limit"})
        rows = RowFilter(**filters).apply(_runs(request).read(name).rows)
        page = rows[query.offset : query.offset + query.limit]
        listed = [
            {**row, "correct": is_correct(row), "evidence": evidence_of(row), "confidence": confidence_of(row)}
            for row in page
        ]
        return {"num_rows": len(rows), "offset": query.offset, "rows": finite(listed)}

    return await asyncio.to_thread(work)


def _runs(request: Request) -> Runs:
    state_of(request)
    runs: Runs = request.app.state.runs
    return runs
