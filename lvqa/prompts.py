"""Every text that a model is shown, in one place.

Functions return text; where a text stands before and after pixels, they return the two halves. Sources: FreeRet's
Figure 3 and section 3.2 (embedding), section 3.3 (reranking); LVBench's customary closing sentence (answering).
"""

from __future__ import annotations

from collections.abc import Sequence

from lvqa.records import LETTERS, Question

CLIP, QUERY = "video clip", "question"
"""What the two sides of retrieval are called."""

YES_OPTION, NO_OPTION = "A", "B"
"""The letters whose logits are compared in reranking."""


def embedding(of: str, *, task: bool = True, semantics: bool = True, noise: bool = True) -> str:
    """What follows the content: `of` is CLIP or QUERY, and each switch one of FreeRet's constraints."""
    other = QUERY if of == CLIP else CLIP
    lines = []
    if task:
        lines.append(f"You are required to assess if the {of} is related to the {other}.")
    lines.append(f"Based on the {of}, output one word:")
    if semantics:
        lines.append(f"- Capture the semantics of the {of}. Favor the topic of the {of}.")
    if noise:
        lines.append("- Do not use function words, prepositions, or symbols.")
    return "\n".join(lines)


def embedding_e5v(of: str) -> str:
    """E5-V's prompt, FreeRet's baseline."""
    return f"Summary above {of} in one word:"


IMAGE = "Given image:"
"""What stands before the picture that belongs to a query, wherever that is shown."""


def query(question: Question, *, with_options: bool = False) -> str:
    """What is searched for: the question, with its options if asked; without a text, what its picture shows."""
    return (question.text or "what the given image shows") + (
        "\n" + options(question.options) if with_options and question.options else ""
    )


def options(texts: Sequence[str]) -> str:
    """One line an option, "A. ..."; the letter comes first, where every model has seen it."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))


def rerank(query_text: str, *, clip_first: bool = False) -> tuple[str, str]:
    """FreeRet's neutral multiple choice: what stands before the clip and what after it."""
    task = f"Determine whether the candidate matches the query.\nQuery: {query_text}\n"
    choice = (
        "A. Yes, the candidate fully matches the query.\n"
        "B. No, the candidate does not match or only partially matches.\n"
        "Answer with the option's letter from the given choices directly."
    )
    return ("Candidate:", task + choice) if clip_first else (f"{task}Candidate:", choice)


def timestamp(seconds: float) -> str:
    """The time in words before a run of frames: "[12:05]", minutes running on past 59 as in LVBench's questions."""
    minutes, rest = divmod(int(seconds), 60)
    return f"[{minutes:02d}:{rest:02d}]"


def answer(question: Question) -> str:
    """What follows the frames: the question, and how to answer it."""
    if question.options:
        return (
            f"{question.text}\n{options(question.options)}\n"
            "Answer with the option's letter from the given choices directly."
        )
    return f"{question.text}\nAnswer the question briefly."
