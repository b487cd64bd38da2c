"""What plug-in points share: classes by name with options of their own, and classes that users add.

A setting names a plug-in in one of three ways:

- a built-in name;
- the name of an entry point of an installed package, in the group of the plug-in point;
- a Python file, `path/to/file.py`, or a class in it, `path/to/file.py:Class`.

The class has the method that the point's Protocol asks for; its options are keywords with defaults. The code of a
plug-in runs as it is, with all rights of the user.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lvqa.records import FileKey, LvqaError, file_key

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Plugin = TypeVar("Plugin")
DATA_SUFFIXES = (".json", ".jsonl")
"""The endings of files with precomputed results, which can replace a plug-in."""

_FILE_NAME = re.compile(r"(?P<path>.+\.py)(:(?P<attribute>\w+))?", re.DOTALL)
_log = logging.getLogger(__name__)


def is_file_name(name: str) -> bool:
    """Return whether a plug-in's name is that of a Python file, with or without a class in it."""
    return _FILE_NAME.fullmatch(name) is not None


def absolute(name: str) -> str:
    """Return a name that means the same in another working directory; a name that is not a file's stays as it is."""
    is_file = is_file_name(name) or name.endswith(DATA_SUFFIXES)
    return str(Path(name).expanduser().absolute()) if is_file else name


def file_of(name: str) -> Path | None:
    """Return the file that a plug-in's name stands for, absolute; None for the name of something else."""
    match = _FILE_NAME.fullmatch(name)
    if match is None and not name.endswith(DATA_SUFFIXES):
        return None
    return Path(match["path"] if match else name).expanduser().absolute()


@dataclass(frozen=True, slots=True)
class PluginSource:
    """Where a plug-in comes from, for messages about errors in it."""

    label: str
    """The path of the plug-in's file, or the name of its entry point and its package."""
    package: str
    """The module, or the top-level package, that holds its code."""

    def owns(self, frame: types.FrameType) -> bool:
        """Return whether a frame of the call stack runs code of the plug-in that is in a file."""
        module, file = (str(frame.f_globals.get(name)) for name in ("__name__", "__file__"))
        return f"{module}.".startswith(f"{self.package}.") and file == frame.f_code.co_filename


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginPoint(Generic[Plugin]):
    """A kind of plug-in: its built-in classes, and what a class of a user must have."""

    name_setting: str
    """The setting that names a plug-in: "method"."""
    options_setting: str
    """The setting that holds its options: "selection.options"."""
    method_name: str
    """The method that a class of a user must have: "select"."""
    parameters: str
    """The parameters of that method, for messages: "inputs"."""
    built_in: Mapping[str, Callable[..., Plugin]]
    entry_point_group: str
    """The group of the entry points by which installed packages add plug-ins: "lvqa.selectors"."""
    guard: Callable[[PluginSource, Any], Plugin]
    """Wraps an object of a user's class, to check what it returns."""
    file_endings: str = ".py"
    """The endings of files that can be named instead, for messages."""

    @property
    def signature(self) -> str:
        """The method that a class of a user must have, as it is written: "select(inputs)"."""
        return f"{self.method_name}({self.parameters})"

    def make(self, name: str, options: Mapping[str, Any] | None = None, **shared: Any) -> Plugin:
        """Return the plug-in of a name.

        Args:
            name: A built-in name, the name of an entry point, or a Python file.
            options: The plug-in's own options.
            shared: Settings that all plug-ins of the kind are offered; each gets those that it has.

        Raises:
            LvqaError: The name, an option or a value is not allowed, or the plug-in can't be loaded.
        """
        options = options or {}
        make = self._find(name)
        accepted = inspect.signature(make).parameters
        if unknown := [option for option in options if option not in accepted]:
            message = f"unknown option {unknown[0]!r} of {self.name_setting} {name!r} ({self.options_setting})"
            raise LvqaError(f"{message}; it takes: {', '.join(accepted) or 'none'}")
        return make(**{**{key: value for key, value in shared.items() if key in accepted}, **options})

    def provides(self, name: str) -> bool:
        """Return whether a file, the class of it that the name has, or an entry point is of this kind.

        Raises:
            LvqaError: The file can't be read or executed.
        """
        if not is_file_name(name):
            return name in self.installed()
        _, module, attribute = _load_module(name)
        classes = self._classes_of(module)
        return bool(classes) if attribute is None else attribute in classes

    def installed(self) -> dict[str, EntryPoint]:
        """Return the plug-ins of installed packages by name, without those that have a built-in name."""
        from importlib.metadata import entry_points

        plugins: dict[str, EntryPoint] = {}
        for entry_point in entry_points(group=self.entry_point_group):
            if entry_point.name in self.built_in:
                _warn_of_built_in(self.name_setting, entry_point.name, entry_point.value)
            else:
                plugins.setdefault(entry_point.name, entry_point)
        return plugins

    def _find(self, name: str) -> Callable[..., Plugin]:
        """Return what makes the plug-in of a name, with the signature of its class."""
        if is_file_name(name):
            return self._from_file(name)
        if name in self.built_in:
            return self.built_in[name]
        installed = self.installed()
        if name in installed:
            return self._from_entry_point(installed[name])
        names = ", ".join([*self.built_in, *sorted(installed)])
        raise LvqaError(
            f"{self.name_setting} must be one of {names}, or a file ending in {self.file_endings}, got {name!r}"
        )

    def _from_file(self, name: str) -> Callable[..., Plugin]:
        path, module, attribute = _load_module(name)
        classes = self._classes_of(module)
        names = ", ".join(classes) or "none"
        wanted = f"with a method {self.signature}"
        if attribute is not None and attribute not in classes:
            raise LvqaError(f"{path} has no class {attribute!r} {wanted}; it has: {names}")
        public = [name for name in classes if not name.startswith("_")]
        if attribute is None and len(public) != 1:
            problem = "has no class" if not public else "has more than one class"
            raise LvqaError(f"{path} {problem} {wanted}: {names}; name one as {path.name}:Class")
        return self._guarded(PluginSource(str(path), module.__name__), classes[attribute or public[0]])

    def _from_entry_point(self, entry_point: EntryPoint) -> Callable[..., Plugin]:
        package = re.split(r"[.:\s]", entry_point.value, maxsplit=1)[0]
        source = PluginSource(f"plug-in {entry_point.name!r} of {package}", package)
        with located_errors(source):
            plugin_class = entry_point.load()
        if not isinstance(plugin_class, type) or not callable(getattr(plugin_class, self.method_name, None)):
            raise LvqaError(f"{source.label} is not a class with a method {self.signature}")
        return self._guarded(source, plugin_class)

    def _guarded(self, source: PluginSource, plugin_class: Callable[..., Any]) -> Callable[..., Plugin]:
        @functools.wraps(plugin_class, updated=())
        def make(**options: Any) -> Plugin:
            with located_errors(source):
                return self.guard(source, plugin_class(**options))

        return make

    def _classes_of(self, module: types.ModuleType) -> dict[str, Callable[..., Any]]:
        """Return the classes that the module defines itself and that have the method."""
        own = [value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__]
        classes = [value for value in own if isinstance(value, type)]
        return {value.__name__: value for value in classes if callable(getattr(value, self.method_name, None))}


@functools.lru_cache(maxsize=64)
def _warn_of_built_in(setting: str, name: str, value: str) -> None:
    """Log once that an entry point is not used."""
    _log.warning("%s %r is built in; the installed plug-in of the same name (%s) is not used", setting, name, value)


def _load_module(name: str) -> tuple[Path, types.ModuleType, str | None]:
    """Return the path of a plug-in's file, its module, and the class in the name."""
    match = _FILE_NAME.fullmatch(name)
    assert match is not None, f"{name!r} is not the name of a Python file"
    path = Path(match["path"]).expanduser().absolute()
    try:
        key = file_key(path)
    except OSError as error:
        raise LvqaError(f"cannot read the plug-in {path}: {error.strerror}") from error
    return path, _execute(path, key), match["attribute"]


@functools.lru_cache(maxsize=16)
def _execute(path: Path, _: FileKey) -> types.ModuleType:
    """Return the file's module, executed again if the file was changed. No compiled copy is written."""
    module = types.ModuleType(f"lvqa_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}")
    module.__file__ = str(path)
    with located_errors(PluginSource(str(path), module.__name__)):
        code = compile(path.read_bytes(), str(path), "exec")
        sys.modules[module.__name__] = module  # dataclasses look it up there
        exec(code, module.__dict__)
    return module


@contextmanager
def located_errors(source: PluginSource) -> Iterator[None]:
    """Turn every error in a plug-in's code into an LvqaError of one line that says where it is."""
    try:
        yield
    except LvqaError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
        message = f"{_locate(error, source)}: {type(error).__name__}{': ' if reason else ''}{reason[:300]}"
        raise LvqaError(message) from error


def _locate(error: BaseException, source: PluginSource) -> str:
    """Return the label of the plug-in, with the file and the line of the error if they are known."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        file, line = error.filename, error.lineno
    else:
        steps = [step for step in traceback.walk_tb(error.__traceback__) if source.owns(step[0])]
        file, line = (steps[-1][0].f_code.co_filename, steps[-1][1]) if steps else (source.label, None)
    if line is None:
        return source.label
    return f"{source.label}:{line}" if file == source.label else f"{source.label} ({file}:{line})"


def run_checks(
    checks: Mapping[str, Callable[[Callable[[], Plugin]], str | None]], make: Callable[[], Plugin]
) -> dict[str, str | None]:
    """Return what each check finds wrong with the plug-in that `make` makes, in one line; None if nothing.

    An LvqaError in a check is a problem too, with its message.
    """

    def run_check(check: Callable[[Callable[[], Plugin]], str | None]) -> str | None:
        try:
            return check(make)
        except LvqaError as error:
            return str(error)

    return {name: run_check(check) for name, check in checks.items()}
