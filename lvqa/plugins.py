"""What plug-in points share: classes by name with options of their own, and classes of yours from a Python file.

Where a setting names a plug-in, `path/to/file.py` or `path/to/file.py:Class` names one in a file. The class has the
method that the point's Protocol asks for; its options are keywords with defaults. The file's code runs as it is, with
all your rights.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lvqa.records import LvqaError

Plugin = TypeVar("Plugin")
DATA_SUFFIXES = (".json", ".jsonl")
"""Of files that stand where a plug-in is named, with what one has found."""

_FILE_NAME = re.compile(r"(?P<path>.+\.py)(:(?P<attribute>\w+))?", re.DOTALL)


def is_file_name(name: str) -> bool:
    """Whether a plug-in's name is that of a Python file, with or without a class in it."""
    return _FILE_NAME.fullmatch(name) is not None


def absolute(name: str) -> str:
    """The same where the working directory is another one; a name that is none of a file stays as it is."""
    is_file = is_file_name(name) or name.endswith(DATA_SUFFIXES)
    return str(Path(name).expanduser().absolute()) if is_file else name


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginPoint(Generic[Plugin]):
    """A kind of plug-in: the classes that have names, and what one from a file must have."""

    setting: str
    """The setting that names one: "method"."""
    options: str
    """The setting that holds its options: "selection.options"."""
    method: str
    """What a class of a file must have: "select"."""
    arguments: str
    """What that takes, for a message: "grid"."""
    named: Mapping[str, Callable[..., Plugin]]
    guarded: Callable[[Path, Any], Plugin]
    """Puts what a file's class has made behind checks of what it gives."""

    def make(self, name: str, options: Mapping[str, Any] | None = None, **shared: Any) -> Plugin:
        """The plug-in of this name, or of this file.

        `options` are its own, and one that it does not take is refused with those that it does. Of the `shared` ones,
        which all plug-ins of the kind are offered, it gets those that it takes. LvqaError for a name, an option or a
        value that is not allowed, and for a file that can't be used.
        """
        options = options or {}
        if is_file_name(name):
            make = self.load(name)
        elif name in self.named:
            make = self.named[name]
        else:
            known = ", ".join(self.named)
            raise LvqaError(f"{self.setting} must be one of {known}, or a file ending in .py, got {name!r}")
        takes = inspect.signature(make).parameters
        if unknown := [option for option in options if option not in takes]:
            told = f"unknown option {unknown[0]!r} of {self.setting} {name!r} ({self.options})"
            raise LvqaError(f"{told}; it takes: {', '.join(takes) or 'none'}")
        return make(**{**{key: value for key, value in shared.items() if key in takes}, **options})

    def load(self, name: str) -> Callable[..., Plugin]:
        """What makes the file's plug-in, with the signature of its class. LvqaError says what is wrong with it."""
        path, module, attribute = _opened(name)
        able = self._able(module)
        names = ", ".join(able) or "none"
        wanted = f"with a method {self.method}({self.arguments})"
        if attribute is not None and attribute not in able:
            raise LvqaError(f"{path} has no class {attribute!r} {wanted}; it has: {names}")
        public = [name for name in able if not name.startswith("_")]
        if attribute is None and len(public) != 1:
            told = "has no class" if not public else "has more than one class"
            raise LvqaError(f"{path} {told} {wanted}: {names}; name one as {path.name}:Class")
        made = able[attribute or public[0]]

        @functools.wraps(made, updated=())
        def make(**options: Any) -> Plugin:
            with located_errors(path):
                return self.guarded(path, made(**options))

        return make

    def is_in(self, name: str) -> bool:
        """Whether the file, or the class of it that the name says, is of this kind. LvqaError if it can't be run."""
        _, module, attribute = _opened(name)
        able = self._able(module)
        return bool(able) if attribute is None else attribute in able

    def _able(self, module: types.ModuleType) -> dict[str, Callable[..., Any]]:
        """The classes of the file's own that have the method."""
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        classes = [value for value in own if isinstance(value, type)]
        return {value.__name__: value for value in classes if callable(getattr(value, self.method, None))}


def _opened(name: str) -> tuple[Path, types.ModuleType, str | None]:
    """The file's path, its module, and the class that the name says."""
    match = _FILE_NAME.fullmatch(name)
    assert match is not None, f"{name!r} is no name of a file"
    path = Path(match["path"]).expanduser().absolute()
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise LvqaError(f"cannot read the plug-in {path}: {error.strerror}") from error
    return path, _executed(path, changed), match["attribute"]


@functools.lru_cache(maxsize=16)
def _executed(path: Path, changed: int) -> types.ModuleType:
    """The file's module; executed anew when the file has changed. Leaves no compiled copy beside it."""
    module = types.ModuleType(f"lvqa_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}")
    module.__file__ = str(path)
    with located_errors(path):
        code = compile(path.read_bytes(), str(path), "exec")
        sys.modules[module.__name__] = module  # where dataclasses look for it
        exec(code, module.__dict__)
    return module


@contextmanager
def located_errors(path: Path) -> Iterator[None]:
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


def problems(
    checks: Mapping[str, Callable[[Callable[[], Plugin]], str | None]], make: Callable[[], Plugin]
) -> dict[str, str | None]:
    """What each check finds wrong with the plug-in that `make` makes, in one line; an LvqaError is what it says."""

    def said(check: Callable[[Callable[[], Plugin]], str | None]) -> str | None:
        try:
            return check(make)
        except LvqaError as error:
            return str(error)

    return {what: said(check) for what, check in checks.items()}
