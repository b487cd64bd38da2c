"""What makes a model safe in threads: it does one thing at a time, and counts for each thread what that has done."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch

from lvqa.concurrency import FairLock, check_stop
from lvqa.records import Counts


class Exclusive:
    """A model that several threads use. Its tokenizer, its hooks and its batches belong to one of them at a time."""

    def __init__(self) -> None:
        self.lock = FairLock()
        """Who has it is the model's only user; every method that is `exclusive` takes it."""
        self._of_thread = threading.local()

    @property
    def counts(self) -> Counts:
        """The work that this thread has had done since the model was loaded: what others do does not change it."""
        if not hasattr(self._of_thread, "counts"):
            self._of_thread.counts = Counts()
        return self._of_thread.counts  # type: ignore[no-any-return]


Model = TypeVar("Model", bound=Exclusive)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def exclusive(
    method: Callable[Concatenate[Model, Arguments], Result],
) -> Callable[Concatenate[Model, Arguments], Result]:
    """Have a method wait until no other thread uses the model; it computes no gradients."""

    @functools.wraps(method)
    def run(model: Model, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        check_stop()
        with model.lock, torch.no_grad():
            return method(model, *args, **kwargs)

    return run
