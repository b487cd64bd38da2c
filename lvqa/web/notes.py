"""Notes on the questions of a run: `notes.json` in its folder, question -> text."""

from __future__ import annotations

import json
from pathlib import Path

from lvqa.files import write_atomically
from lvqa.records import LvqaError
from lvqa.validation import decode_json

NOTES = "notes.json"


def read_notes(folder: Path) -> dict[str, str]:
    """Return the notes in a run folder: question, as "video/question id", -> text.

    Raises:
        LvqaError: The file can't be read, or is none of notes.
    """
    try:
        content = (folder / NOTES).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LvqaError(f"cannot read {folder / NOTES}: {error.strerror or error}") from error
    return decode_json(content, dict[str, str], origin=str(folder / NOTES))


def write_note(folder: Path, key: str, text: str) -> None:
    """Note a text on a question; an empty one takes the note away.

    Raises:
        LvqaError: The file can't be read or written.
    """
    notes = {**read_notes(folder), key: text}
    kept = {name: note for name, note in notes.items() if note}
    try:
        write_atomically(folder / NOTES, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise LvqaError(f"cannot write {folder / NOTES}: {error.strerror or error}") from error
