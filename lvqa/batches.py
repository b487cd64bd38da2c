"""Questions on one video in batches: so many together, and one that fails takes no other with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lvqa.records import Answer, LvqaError, Question

QUESTIONS_AT_ONCE = 4
"""How many questions on a video are asked together where nothing else is said."""


def even_batches(questions: Sequence[Question], questions_at_once: int) -> list[Sequence[Question]]:
    """Return the questions in batches of at most so many, about equally large."""
    num, num_batches = len(questions), math.ceil(len(questions) / questions_at_once)
    return [questions[num * i // num_batches : num * (i + 1) // num_batches] for i in range(num_batches)]


def answer_batch(
    answer: Callable[[Sequence[Question]], Sequence[Answer]], questions: Sequence[Question]
) -> Sequence[Answer | LvqaError]:
    """Answer questions together. If that fails, answer each alone: one of them may be at fault, or there are too many.

    Args:
        answer: Answers questions on a video, all or none.
        questions: The questions.

    Returns:
        For each question its answer, or why there is none.

    Raises:
        Exception: A question alone failed with something else than an LvqaError.
    """
    try:
        return answer(questions)
    except (LvqaError, MemoryError, RuntimeError) as error:
        if len(questions) > 1:
            return [answer_batch(answer, [question])[0] for question in questions]
        if isinstance(error, LvqaError):
            return [error]
        raise
