"""Pages as HTML: those that a server sends, and those that need no other file."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lvqa.image import picture_bytes, read_image
from lvqa.output import finite, video_json
from lvqa.places import RemotePath
from lvqa.records import Answer, Candidate, Video, counted
from lvqa.report.answers import clock, thumbnail_size, thumbnails
from lvqa.report.page import data_url, write_file
from lvqa.web.script import STATIC, classic_script, style
from lvqa.web.views import answer_view

__all__ = ["STATIC", "answer_page", "page", "picture_key", "pictures_of", "write_page"]

MAX_FRAME_HEIGHT, MAX_QUESTION_IMAGE_HEIGHT = 480, 180
"""Pixels. A stored page shows a frame small, and in this height when it is enlarged."""


def page(title: str, name: str, **values: Any) -> bytes:
    """Return a page: what it shows is made by the modules, from the JSON that they get.

    Args:
        title: The name that a browser shows.
        name: The page's name in main.js.
        **values: `data`: attributes of <main>, which the modules read. `navigation`: (address, text) of links.
            `stored`: the page needs no server; its script, style and values are in it, or lie beside it.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    defaults: dict[str, Any] = {"data": {}, "navigation": (), "stored": None, "content": None}
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, name=name, **(defaults | values)).encode("utf-8", errors="backslashreplace")


def answer_page(
    video: Mapping[str, Any],
    answers: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, str],
    *,
    details: str,
    content: Mapping[str, Any] | None = None,
) -> bytes:
    """Return answers to one question about a video as a page that needs no other file.

    Args:
        video: The video as JSON; "media" is its address, if the page is to play it.
        answers: {"label", "answer"}, each answer as `answer_view` returns it.
        pictures: The key of a time, as `picture_key` returns it -> a JPEG file in base64.
        details: A line on what the page is about.
        content: What else it shows: "image", "made_with", "settings".
    """
    stored = {
        "answer": {"video": video, "answers": answers, "details": details},
        "pictures": {video["id"]: pictures},
    }
    question = str(answers[0]["answer"]["question"])
    assets = {"globals": finite(stored), "script": classic_script(), "style": style(), "files": ()}
    return page(question[:80], "answer", stored=assets, content=content)


def write_page(
    path: Path,
    answer: Answer,
    video: Video,
    *,
    evidence: Sequence[Candidate],
    made_with: Mapping[str, Any] | None = None,
) -> None:
    """Write an answer as one HTML file that needs no other file: the workbench's page for one answer.

    Args:
        path: Where the page is written.
        answer: The answer.
        video: The video that the question is about; its frames are decoded again.
        evidence: The candidates to list, best first.
        made_with: The model, the settings and the versions, as `provenance` returns them.

    Raises:
        LvqaError: If the frames or the picture of the question cannot be read, or the page cannot be written.
    """
    view, question = answer_view(answer, video, evidence), answer.question
    view |= {"target": question.answer, "evidence_seconds": question.evidence_seconds}
    view |= {"correct": None if question.answer is None else answer.option == question.answer}
    label = f"{answer.method}, {counted(len(answer.frames), 'frame')}"
    content: dict[str, Any] = {"image": None, "made_with": made_with, "settings": ""}
    if question.image is not None:
        content["image"] = data_url(picture_bytes(read_image(question.image, size_of=_image_size), "jpg"), "image/jpeg")
    if made_with is not None:
        content["settings"] = json.dumps(made_with["settings"], indent=1)
    details = f"{video.path} · {clock(video.duration_seconds)} · {video.width}x{video.height} · model {answer.model}"
    pictures = pictures_of(video, answer.frames, max_height=MAX_FRAME_HEIGHT)
    about = {**video_json(video), "name": video.path.name, "media": relative_address(video.path, path.parent)}
    write_file(path, answer_page(about, [{"label": label, "answer": view}], pictures, details=details, content=content))


def pictures_of(video: Video, times_seconds: Iterable[float], *, max_height: int) -> dict[str, str]:
    """Return the frames at these times as JPEG files in base64, under the keys of their times."""
    times = sorted({*times_seconds})
    files = (picture_bytes(pixels, "jpg") for pixels in thumbnails(video, times, max_height=max_height))
    return {picture_key(t): base64.b64encode(file).decode() for t, file in zip(times, files, strict=True)}


def picture_key(seconds: float) -> str:
    """Return a time as JavaScript writes the number."""
    return str(int(seconds)) if seconds == int(seconds) else repr(float(seconds))


def relative_address(path: Path, folder: Path) -> str:
    """Return the address of a file, seen from a page in a folder."""
    if isinstance(path, RemotePath):
        return str(path)
    try:
        return quote(os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/"))
    except ValueError:  # on another drive
        return path.resolve().as_uri()


def _image_size(height: int, width: int) -> tuple[int, int]:
    return thumbnail_size(height, width, max_height=MAX_QUESTION_IMAGE_HEIGHT)
