"""Imports that wait until something is done with what they import.

The classes of transformers import torch's compiler, its tensors over several machines, scipy's optimisers and what is
installed for quantisation: over 1,000 modules, which take as long as torch itself, and which no question uses. Python
can't wait with an import before version 3.15 (PEP 810); until then a process that runs one command waits here.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

_log = logging.getLogger(__name__)

DEFERRED = (
    *("accelerate", "scipy.optimize", "torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp"),
    *("torch.distributed.tensor", "torchao"),
)
"""The modules that wait, each with all that is below it."""


@contextmanager
def deferred_imports(modules: Sequence[str] = DEFERRED, *, calls: bool = True) -> Iterator[None]:
    """Let imports of these modules give stand-ins inside the `with` block; those that are loaded already stay.

    Names that are imported from a stand-in stay stand-ins after the block. One becomes the real thing when it is called
    after the block, read, written to or derived from. Nothing is an instance of a class that was not loaded, and what a
    decorator made of a function is asked for when the function is called first. What needs the real thing inside
    the block ends the waiting for all: from then on modules are imported as always.

    Args:
        modules: The modules, each with all that is below it.
        calls: Calls inside the block wait as well, as modules make them while they are imported.
    """
    finder = _Finder([name for name in modules if name not in sys.modules], calls=calls)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.stop()


class _Finder(MetaPathFinder, Loader):
    """Gives stand-ins for modules until it is stopped."""

    def __init__(self, modules: Sequence[str], *, calls: bool) -> None:
        self.modules, self._calls = modules, calls

    @property
    def is_waiting(self) -> bool:
        return self in sys.meta_path

    @property
    def delays_calls(self) -> bool:
        return self._calls and self.is_waiting

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in self.modules):
            return None
        if (real := PathFinder.find_spec(fullname, path)) is None:  # there may be no such module
            return None
        spec = ModuleSpec(fullname, self, origin=real.origin)
        spec.submodule_search_locations = real.submodule_search_locations
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self)

    def exec_module(self, module: ModuleType) -> None:
        pass  # it has no code

    def stop(self) -> None:
        """Have modules imported as always, as if there had been no stand-ins."""
        if not self.is_waiting:
            return
        sys.meta_path.remove(self)
        for name, module in [*sys.modules.items()]:
            if isinstance(module, _StandIn):
                del sys.modules[name]
                parent, _, child = name.rpartition(".")
                if vars(sys.modules.get(parent, module)).get(child) is module:
                    delattr(sys.modules[parent], child)


class _StandIn(ModuleType):
    """Stands for a module; it has every name."""

    def __init__(self, name: str, finder: _Finder) -> None:
        super().__init__(name)
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        module = self.__name__
        if not self._finder.is_waiting or name == "__all__":  # a star
            self._finder.stop()
            real = importlib.import_module(module)
            if name == "__all__" and not hasattr(real, name):
                return [known for known in vars(real) if not known.startswith("_")]
            return getattr(real, name)
        if name.startswith("__"):  # the import system asks for its own names
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return _Later(self._finder, module, lambda: getattr(importlib.import_module(module), name))


class _Later:
    """Stands for what a module has, or for what a call of it returns."""

    def __init__(self, finder: _Finder, module: str, find: Callable[[], Any]) -> None:
        vars(self).update(_finder=finder, _module=module, _find=find)

    def _real(self) -> Any:
        self._finder.stop()
        if self._module not in sys.modules:
            _log.debug("%s is imported now, since it is used", self._module)
        return self._find()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._finder.delays_calls:
            return self._real()(*args, **kwargs)
        if not (args and isinstance(args[0], FunctionType)):
            return _Later(self._finder, self._module, lambda: self._real()(*args, **kwargs))
        decorated = functools.cache(lambda: self._real()(*args, **kwargs))
        return functools.wraps(args[0])(lambda *own, **options: decorated()(*own, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real(), name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]

    def __or__(self, other: Any) -> Any:
        return self._real() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._real()

    def __eq__(self, other: object) -> bool:
        return self is other or bool(self._real() == other)

    def __hash__(self) -> int:
        return hash(self._real())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return self._is_loaded and isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return self._is_loaded and issubclass(subclass, self._real())

    @property
    def _is_loaded(self) -> bool:
        return not isinstance(sys.modules.get(self._module), _StandIn | None)
