"""A selector of your own, from a Python file: `--method path/to/file.py`, or `path/to/file.py:Class`.

The file has a class with `select(self, grid)`, as the Protocol `Selector` says, whose options are keywords with
defaults. `needs_scores` (true unless it says else) and `needs_features` (false) say what the pipeline must find first.
The file's code runs as it is, with all your rights.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lvqa.records import FrameSelection, LvqaError
from lvqa.selection.grid import Selector, SelectorInput

_FILE_NAME = re.compile(r"(?P<path>.+\.py)(:(?P<attribute>\w+))?", re.DOTALL)


def is_file_name(name: str) -> bool:
    """Whether a method's name is that of a Python file, with or without a class in it."""
    return _FILE_NAME.fullmatch(name) is not None


def absolute(name: str) -> str:
    """The same where the working directory is another one; a name that is none of a file stays as it is."""
    return str(Path(name).expanduser().absolute()) if is_file_name(name) else name


def load_selector(name: str) -> Callable[..., Selector]:
    """What makes the file's selector, with the signature of its class. LvqaError says what is wrong with the file."""
    match = _FILE_NAME.fullmatch(name)
    assert match is not None, f"{name!r} is no name of a file"
    path = Path(match["path"]).expanduser().absolute()
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise LvqaError(f"cannot read the selector {path}: {error.strerror}") from error
    made = _the_class(path, _executed(path, changed), match["attribute"])

    @functools.wraps(made, updated=())
    def make(**options: Any) -> Selector:
        with _told(path):
            return UserSelector(path, made(**options))

    return make


@dataclass(frozen=True, slots=True, eq=False)
class UserSelector:
    """A selector from a file. What goes wrong in it is an LvqaError that names the file and the line."""

    path: Path
    inner: Any

    def __post_init__(self) -> None:
        for name in ("needs_scores", "needs_features"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise LvqaError(f"{self._name}.{name} must be true or false, got {value!r}")

    @property
    def needs_scores(self) -> bool:
        """As the class says; true if it says nothing."""
        return getattr(self.inner, "needs_scores", True)

    @property
    def needs_features(self) -> bool:
        """As the class says; false if it says nothing."""
        return getattr(self.inner, "needs_features", False)

    def select(self, grid: SelectorInput) -> FrameSelection:
        """What the class selects, if it is what was asked for."""
        with _told(self.path):
            selection = self.inner.select(grid)
        if fault := grid.fault(selection):
            raise LvqaError(f"{self._name}.select gives {fault}")
        checked: FrameSelection = selection
        return checked

    @property
    def _name(self) -> str:
        return f"{self.path}: {type(self.inner).__name__}"


@functools.lru_cache(maxsize=16)
def _executed(path: Path, changed: int) -> types.ModuleType:
    """The file's module; executed anew when the file has changed. Leaves no compiled copy beside it."""
    module = types.ModuleType(f"lvqa_selector_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}")
    module.__file__ = str(path)
    with _told(path):
        code = compile(path.read_bytes(), str(path), "exec")
        sys.modules[module.__name__] = module  # where dataclasses look for it
        exec(code, module.__dict__)
    return module


def _the_class(path: Path, module: types.ModuleType, attribute: str | None) -> Callable[..., Any]:
    """The class of this name, or the only one that can select."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
    able = {value.__name__: value for value in own if isinstance(value, type) and callable(getattr(value, "select", 0))}
    names = ", ".join(able) or "none"
    if attribute is not None and attribute not in able:
        raise LvqaError(f"{path} has no class {attribute!r} with a method select(grid); it has: {names}")
    public = [name for name in able if not name.startswith("_")]
    if attribute is None and len(public) != 1:
        told = "has no class" if not public else "has more than one class"
        raise LvqaError(f"{path} {told} with a method select(grid): {names}; name one as {path.name}:Class")
    return able[attribute or public[0]]


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong in the user's code into one line that says where."""
    try:
        yield
    except LvqaError:
        raise
    except (Exception, SystemExit) as error:
        lines = [step.lineno for step in traceback.extract_tb(error.__traceback__) if step.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        reason = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
        where = str(path) if line is None else f"{path}:{line}"
        raise LvqaError(f"{where}: {type(error).__name__}{': ' if reason else ''}{reason[:300]}") from error
