"""Every text that a model is shown, in one place.

Functions return text; where a text stands before and after pixels, they return the two halves. Sources: FreeRet's
Figure 3 and section 3.3 (embedding), Figure 4 and section 3.4 (reranking); LVBench's customary closing sentence
(answering). The prompts of embedding and reranking are there in two wordings: "paper" is FreeRet's to the letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lvqa.records import LETTERS, LvqaError, Question, shorten
from lvqa.schema import has_times

WORDINGS = ("paper", "lvqa")
"""As FreeRet prints its prompts, and as the embedded model was taught them: with a closing sentence that asks for the
letter, and a task sentence for each side."""

CLIP, QUERY = "video clip", "question"
"""How the prompts call the two sides of retrieval in a video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalTask:
    """What the prompts of retrieval call the query and the candidates, and what they ask about them.

    The default is the task of `LongVideoQA`: a question, and clips of a video. FreeRet's Figure 3 is
    RetrievalTask(query="image and news", query_topic="news", candidate="sentence", relation=("news", "topic")).
    """

    query: str = QUERY
    """The noun for a query: "image and news"."""
    candidate: str = CLIP
    """The noun for a candidate: "sentence"."""
    query_topic: str | None = None
    """Whose topic a query's vector favours, "news" of "image and news"; None: the whole query's."""
    candidate_topic: str | None = None
    """Whose topic a candidate's vector favours; None: the whole candidate's."""
    relation: tuple[str, str] | None = None
    """The two things that the first constraint asks about on both sides, ("news", "topic"): is the news related to the
    topic? None: what is embedded, and what stands on the other side."""
    instruction: str = "Determine whether the candidate matches the query."
    """How FreeRet's reranking prompt begins."""
    match: str = "Yes, the candidate fully matches the query."
    """The option of reranking for a candidate that matches."""
    mismatch: str = "No, the candidate does not match or only partially matches."
    """The option for another one."""

    def __post_init__(self) -> None:
        """Refuse what is no text or empty. LvqaError names the field."""
        relation = () if self.relation is None else tuple(self.relation)
        if self.relation is not None and len(relation) != 2:
            raise LvqaError(f"relation must be two nouns, got {shorten(self.relation)}")
        topics = [("query_topic", self.query_topic), ("candidate_topic", self.candidate_topic)]
        required = [(name, getattr(self, name)) for name in _REQUIRED]
        given = [(name, value) for name, value in topics if value is not None]
        for name, value in (*required, *given, *(("relation", noun) for noun in relation)):
            if not isinstance(value, str) or not value.strip():
                raise LvqaError(f"{name} of a retrieval task must be a text, got {shorten(value)}")


_REQUIRED = ("query", "candidate", "instruction", "match", "mismatch")

VIDEO_RETRIEVAL = RetrievalTask()
"""The task of `LongVideoQA`."""

YES_OPTION, NO_OPTION = "A", "B"
"""The letters of the options of reranking, in their usual order."""

LABELS = {
    "letters": (YES_OPTION, NO_OPTION),
    "yes_no": ("Yes", "No"),
    "true_false": ("True", "False"),
    "right_wrong": ("Right", "Wrong"),
}
"""FreeRet's framings of reranking (Figure 4) -> the reply for a candidate that matches, and for another."""


def embedding(
    content: str,
    *,
    other: str | None = None,
    topic: str | None = None,
    relation: tuple[str, str] | None = None,
    task: bool = True,
    semantics: bool = True,
    noise: bool = True,
    wording: str = "lvqa",
) -> str:
    """Return what follows the content in FreeRet's embedding prompt (section 3.3, Figure 3).

    Args:
        content: The noun for what is embedded, such as CLIP or QUERY.
        other: The noun for the other side; None: CLIP for QUERY, and QUERY for all else.
        topic: Whose topic is favoured; None: the content's.
        relation: What the first constraint asks about; None: the content and the other side.
        task: Whether the first constraint is there, the task.
        semantics: Whether the second one is there, semantics.
        noise: Whether the third one is there, noise.
        wording: One of WORDINGS.
    """
    first, second = relation or (content, other or (CLIP if content == QUERY else QUERY))
    bullet, the = ("\u2022", "") if wording == "paper" else ("-", "the ")
    lines = []
    if task:
        lines.append(f"You are required to assess if the {first} is related to the {second}.")
    lines.append(f"Based on {the}{content}, output one word:")
    if semantics:
        lines.append(f"{bullet} Capture the semantics of the {content}. Favor the topic of the {topic or content}.")
    if noise:
        lines.append(f"{bullet} Do not use function words, prepositions, or symbols.")
    return "\n".join(lines)


def embedding_e5v(content: str, *, wording: str = "lvqa") -> str:
    """Return E5-V's prompt, FreeRet's equation 1; `content` is the noun of what is embedded, "content" in the paper."""
    return f"Summary above {'content' if wording == 'paper' else content} in one word:"


IMAGE = "Given image:"
"""The text before a picture that stands beside something else, such as a query's text."""

VIDEO = "Given video:"
"""The text before a video or a clip that stands beside something else."""

SOUND = "Given sound:"
"""The text before a sound that stands beside something else."""

VOICE = "Spoken question:"
"""The text before a question in a sound file."""


def instead_of_text(kinds: Sequence[str]) -> str:
    """Return the text of a query that has none, by what it has instead: ["image"], ["image", "sound"], ["voice"]."""
    if "voice" in kinds:
        return "what the spoken question asks for"
    return f"what the given {' and '.join(kinds)} {'shows' if len(kinds) == 1 else 'show'}"


def query(question: Question, *, with_options: bool = False) -> str:
    """Return the text that is searched for: the question, with its options if they are wanted.

    A question without a text is searched for by what it has instead, a picture or a voice.
    """
    instead = instead_of_text(["image"] if question.voice is None else ["voice"])
    text = history(question.history) + (question.text or instead)
    return text + ("\n" + options(question.options) if with_options and question.options else "")


def options(texts: Sequence[str]) -> str:
    """Return the options, one a line, "A. ..."; the letter comes first, where every model has seen it."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))


def rerank_lead(task: RetrievalTask = VIDEO_RETRIEVAL, *, wording: str = "lvqa", clip_first: bool = False) -> str:
    """Return how the reranking prompt of a task begins, whatever the query is."""
    if wording == "paper":
        separator = "\n" if clip_first else ""  # the clip stands on the line before
        return f"{separator}Task: {task.instruction}\nQuery:"
    return f"{task.instruction}\nQuery:"


RERANK_TASK = rerank_lead()
"""How it begins in a video."""


def rerank(
    query_text: str,
    *,
    labels: str = "letters",
    swapped: bool = False,
    clip_first: bool = False,
    task: RetrievalTask = VIDEO_RETRIEVAL,
    wording: str = "lvqa",
) -> tuple[str, str]:
    """Return FreeRet's question whether a clip matches (section 3.4): the text before the clip and the text after it.

    Args:
        query_text: What is searched for.
        labels: A framing in LABELS.
        swapped: Whether the reply for a clip that does not match is named first.
        clip_first: Whether the clip comes before the query.
        task: Its words.
        wording: One of WORDINGS. In the paper's the options stand on lines of their own, and nothing is added; the
            other framings end as in Figure 4.
    """
    query_line = f"{rerank_lead(task, wording=wording, clip_first=clip_first)} {query_text}\n"
    verdicts, (first, second) = [task.match, task.mismatch], LABELS[labels]
    if swapped:
        verdicts, first, second = verdicts[::-1], second, first
    if wording == "paper":
        choice = options(verdicts) if labels == "letters" else f"Answer the question only with '{first}' or '{second}'."
        return ("Candidate: ", query_line + choice) if clip_first else (f"{query_line}Candidate: ", f"\n{choice}")
    if labels == "letters":
        choice = f"{options(verdicts)}\nAnswer with the option's letter from the given choices directly."
    else:
        question = "Does the candidate fully match the query?" if labels == "yes_no" else _STATEMENT
        choice = f"{question}\nAnswer with {first} or {second} directly."
    return ("Candidate:", query_line + choice) if clip_first else (f"{query_line}Candidate:", choice)


def reply_only(first: str, second: str) -> str:
    """Return FreeRet's probe of labels without a context (Figure 4, right)."""
    return f"Reply only with '{first}' or '{second}'"


_STATEMENT = "The candidate fully matches the query."


def rerank_labels(labels: str, *, swapped: bool = False) -> tuple[str, str]:
    """Return the reply for a clip that matches and for another; options take the letters of their places."""
    match, other = LABELS[labels]
    return (other, match) if swapped and labels == "letters" else (match, other)


def retllm_lead(task: RetrievalTask = VIDEO_RETRIEVAL) -> str:
    """Return how RetLLM's questions of a task begin, whatever the query is.

    Its program asks whether an image matches a caption. What is searched for by a question is called a query here.
    """
    return f"Does the {task.candidate} match the {'query' if task.query == QUERY else task.query}: <"


def retllm_true(query_text: str, *, task: RetrievalTask = VIDEO_RETRIEVAL) -> str:
    """Return RetLLM's yes-or-no question after a candidate, in the words of its released program."""
    return f"{retllm_lead(task)}{query_text}>? Please directly output True or False"


def retllm_score(query_text: str, *, task: RetrievalTask = VIDEO_RETRIEVAL) -> str:
    """Return RetLLM's request for a score after a candidate, in the words of its released program."""
    return (
        f"{retllm_lead(task)}{query_text}>? Please directly output the relevance score "
        'in a format of "Answer: score" Keep four decimal places'
    )


def retllm_tie(query_text: str) -> tuple[str, str]:
    """Return what RetLLM's paper asks about candidates with equal scores: the text before the clip and after it."""
    return f"{query_text}, ", ". Does the candidate match the query, True or False."


def question_kind(question_text: str) -> str:
    """Return the question what another one is about; the options are those of records.QUESTION_KINDS, in their order.

    It is asked as FreeRet asks whether a clip matches: one of several sentences, by its letter.
    """
    kinds = [
        "The question is about one moment of the video.",
        "The question is about the order of several events.",
        "The question is about the whole video.",
    ]
    return (
        f"Determine what the question about a video is about.\nQuestion: {question_text}\n{options(kinds)}\n"
        "Answer with the option's letter from the given choices directly."
    )


TRUE, FALSE = LABELS["true_false"]
"""The replies to `retllm_true` and `retllm_tie`."""


def timestamp(seconds: float) -> str:
    """Return the time before a run of frames: "[12:05]", with minutes past 59 as in LVBench's questions."""
    minutes, rest = divmod(int(seconds), 60)
    return f"[{minutes:02d}:{rest:02d}]"


def subtitles(lines: Sequence[str]) -> str:
    """Return the lines of subtitles that go with the frames, before the question; nothing if there are none."""
    return "".join(f"{line}\n" for line in ("Subtitles:", *lines)) if lines else ""


def history(turns: Sequence[tuple[str, str]]) -> str:
    """Return the earlier turns of a conversation, before the question that goes on with it; nothing without any."""
    return "".join(f"Earlier question: {asked_text}\nEarlier answer: {reply}\n" for asked_text, reply in turns)


def answer(question: Question) -> str:
    """Return what follows the frames: the earlier turns, the question, and how to answer it."""
    text = history(question.history) + question.text
    if question.options:
        return f"{text}\n{options(question.options)}\nAnswer with the option's letter from the given choices directly."
    if question.schema is not None:
        return f"{text}\n{answer_object(question.schema)}"
    return f"{text}\nAnswer the question briefly."


def answer_object(schema: str) -> str:
    """Return how to answer with an object that fits a JSON schema, which may have times in it."""
    times = f"\n{_OBJECT_TIMES}" if has_times(schema) else ""
    return f"Answer with a JSON object that fits this schema:\n{schema}{times}"


_OBJECT_TIMES = 'Times of the format "seconds" are in seconds from the start of the video: [01:30] is 90.'


def short_answer(question: Question) -> str:
    """Return the bare question, where the options are compared as replies to it."""
    return f"{history(question.history)}{question.text}\nAnswer with a word or a short phrase."


def judge(question: str, expected: str, answer: str) -> tuple[str, str]:
    """Return what a model that judges open answers is shown: the system's message, and the user's."""
    system = (
        "You judge answers to questions about a video. You see a question, the expected answer, and an answer. The "
        "answer is correct if it says the same as the expected answer, in whatever words. Reply with yes or no alone."
    )
    user = (
        f"Question: {question}\nExpected answer: {expected}\nAnswer: {answer}\nIs the answer correct? Reply yes or no."
    )
    return system, user
