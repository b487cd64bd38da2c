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
"""The letters of the options of reranking, in their usual order."""

LABELS = {
    "letters": (YES_OPTION, NO_OPTION),
    "yes_no": ("Yes", "No"),
    "true_false": ("True", "False"),
    "right_wrong": ("Right", "Wrong"),
}
"""FreeRet's framings of reranking (Figure 4): what is said of a candidate that matches, and of another."""


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


VOICE = "Spoken question:"
"""What stands before a question that is asked by voice."""


def query(question: Question, *, with_options: bool = False) -> str:
    """What is searched for: the question, with its options if asked; without a text, what it holds instead."""
    instead = "what the given image shows" if question.voice is None else "what the spoken question asks for"
    return (question.text or instead) + ("\n" + options(question.options) if with_options and question.options else "")


def options(texts: Sequence[str]) -> str:
    """One line an option, "A. ..."; the letter comes first, where every model has seen it."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))


def rerank(
    query_text: str, *, labels: str = "letters", swapped: bool = False, clip_first: bool = False
) -> tuple[str, str]:
    """FreeRet's question whether a clip matches: what stands before the clip and what after it.

    `labels` is a framing in LABELS; `swapped` names what is said of a clip that does not match first.
    """
    task = f"Determine whether the candidate matches the query.\nQuery: {query_text}\n"
    if labels == "letters":
        verdicts = [
            "Yes, the candidate fully matches the query.",
            "No, the candidate does not match or only partially matches.",
        ]
        listed = options(verdicts[::-1] if swapped else verdicts)
        choice = f"{listed}\nAnswer with the option's letter from the given choices directly."
    else:
        asked = "Does the candidate fully match the query?" if labels == "yes_no" else _STATEMENT
        first, second = LABELS[labels][::-1] if swapped else LABELS[labels]
        choice = f"{asked}\nAnswer with {first} or {second} directly."
    return ("Candidate:", task + choice) if clip_first else (f"{task}Candidate:", choice)


def reply_only(first: str, second: str) -> str:
    """FreeRet's probe of labels without a context (Figure 4, right)."""
    return f"Reply only with '{first}' or '{second}'"


_STATEMENT = "The candidate fully matches the query."


def rerank_labels(labels: str, *, swapped: bool = False) -> tuple[str, str]:
    """What is said of a clip that matches and of another: options take the letters of their places, words stay."""
    match, other = LABELS[labels]
    return (other, match) if swapped and labels == "letters" else (match, other)


def retllm_true(query_text: str) -> str:
    """RetLLM's yes-or-no question behind a clip, as its released program asks it; its images are video clips here."""
    return f"Does the {CLIP} match the query: <{query_text}>? Please directly output True or False"


def retllm_score(query_text: str) -> str:
    """RetLLM's demand for a score behind a clip, in the words of its released program."""
    return (
        f"Does the {CLIP} match the query: <{query_text}>? Please directly output the relevance score "
        'in a format of "Answer: score" Keep four decimal places'
    )


def retllm_tie(query_text: str) -> tuple[str, str]:
    """What RetLLM's paper asks of candidates with equal scores: what stands before the clip and what after it."""
    return f"{query_text}, ", ". Does the candidate match the query, True or False."


TRUE, FALSE = LABELS["true_false"]
"""The replies to the first and the last of these."""


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


def short_answer(question: Question) -> str:
    """The bare question, where the options are to be compared as replies to it."""
    return f"{question.text}\nAnswer with a word or a short phrase."
