"""Names of a package whose modules are imported, and fields that are found out, when they are used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package: importing the package then imports no module of it (PEP 562).

    Args:
        package: The package's name.
        modules: A name that the package has -> the module of the package that it is in.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get


class LazyField:
    """A field of a frozen dataclass without slots: its value, or a function that gives it when it is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, record: Any, owner: type) -> Any:
        """Return the value."""
        if record is None:
            raise AttributeError(self._name)
        value = vars(record)[self._name]
        if callable(value):
            value = vars(record)[self._name] = value()
        return value

    def __set__(self, record: Any, value: Any) -> None:
        """Set what `__init__` of the dataclass was given."""
        vars(record)[self._name] = value
