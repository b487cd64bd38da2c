"""Runs of `lvqa eval`: which there are, their rows, and what their pages show of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from lvqa.evaluation import Run, read_run
from lvqa.evaluation.filters import RowFilter, confidence_of, evidence_of
from lvqa.evaluation.rows import is_correct
from lvqa.output import finite
from lvqa.records import FileKey, LvqaError, file_key, shorten
from lvqa.server.errors import ApiError
from lvqa.server.registry import VideoRegistry
from lvqa.server.schemas import NoteRequest, RowQuery
from lvqa.server.state import state_of
from lvqa.web import RunView, read_notes, write_note

router = APIRouter(prefix="/api/runs", tags=["runs"])

MAX_OPEN_RUNS = 4
"""The rows of so many runs stay in memory."""


class Runs:
    """The runs in the folders that were named. A run that grows is read again."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self._open: OrderedDict[Path, tuple[FileKey, RunView]] = OrderedDict()
        self._lock = threading.Lock()

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

    def folder_of(self, name: str) -> Path:
        """Return the folder of a run."""
        folder = self.names().get(name)
        if folder is None:
            raise ApiError(404, f"there is no run {shorten(name)}; lvqa serve --runs DIR names them")
        return folder

    def view(self, name: str) -> RunView:
        """Return a run as it is now."""
        folder = self.folder_of(name)
        with self._lock:
            key = file_key(folder / "answers.jsonl")
            if folder not in self._open or self._open[folder][0] != key:
                self._open[folder] = (key, RunView(read_run(folder)))
            self._open.move_to_end(folder)
            while len(self._open) > MAX_OPEN_RUNS:
                self._open.popitem(last=False)
            return self._open[folder][1]

    def read_ahead(self) -> None:
        """Read the runs that stay in memory, so that the first page finds them; what can't be read is told there."""
        for name in [*self.names()][:MAX_OPEN_RUNS]:
            with suppress(LvqaError, OSError):
                _ = self.view(name).summary

    def read(self, name: str) -> Run:
        """Return a run as it is now."""
        return self.view(name).run

    def write_note(self, name: str, key: str, text: str) -> None:
        """Note a text on a question of a run."""
        view = self.view(name)
        if key not in view.keys:
            raise ApiError(404, f"key: run {name} has no question {shorten(key)}")
        with self._lock:
            write_note(view.run.folder, key, text)


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


@router.get("/{name}/size")
async def get_size(request: Request, name: str) -> dict[str, int]:
    """Return how many rows a run has: a page that shows it asks now and then."""
    return {"num_rows": await asyncio.to_thread(lambda: len(_runs(request).read(name).rows))}


@router.get("/{name}/questions")
async def list_questions(request: Request, name: str) -> Response:
    """Return all questions of a run in short, with what became of each in every arm, and the notes."""

    def work() -> bytes:
        view = _runs(request).view(name)
        return json.dumps({**view.summary, "name": name, "notes": read_notes(view.run.folder)}).encode()

    return Response(await asyncio.to_thread(work), media_type="application/json")


@router.get("/{name}/questions/{index}")
async def get_question(request: Request, name: str, index: int) -> dict[str, Any]:
    """Return a question of a run with its answers in all arms, and the scores of clips that they are from."""
    state, view = state_of(request), await asyncio.to_thread(_runs(request).view, name)
    if not 0 <= index < len(view):
        raise ApiError(404, f"run {name} has {len(view)} questions, and none of number {index}")
    known = view.video_of(index)

    def look(registry: VideoRegistry) -> dict[str, Any]:
        registry.offer({video_id: Path(path) for video_id, path in view.paths.items()})
        try:
            return {**known, "is_there": registry.get(known["id"]) is not None}
        except (ApiError, LvqaError):
            return {**known, "is_there": False}

    video = await state.in_files(look)
    return await asyncio.to_thread(view.question, index, video)


@router.put("/{name}/notes", status_code=204)
async def put_note(request: Request, name: str, body: NoteRequest) -> Response:
    """Note a text on a question; it is kept in the run's folder, in notes.json."""
    await asyncio.to_thread(_runs(request).write_note, name, body.key, body.text)
    return Response(status_code=204)


def _runs(request: Request) -> Runs:
    state_of(request)
    runs: Runs = request.app.state.runs
    return runs
