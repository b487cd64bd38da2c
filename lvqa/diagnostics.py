"""Diagnose a model as FreeRet does (arXiv 2509.24621), on the clips of a video.

What its sub-layers do to a state (section 3.2, Figure 2a), which word it would say of a clip (Figure 3, A.3), whether
it prefers a label before it has seen anything (section 3.4, Figure 4, A.4), and how well it judges under each framing
(Figure 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lvqa import prompts
from lvqa.embedding import Embedder
from lvqa.models import Model
from lvqa.models.memory import MemoryShares
from lvqa.models.prefix import PrefixCache
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.pipeline import LongVideoQA
from lvqa.records import Candidate, Clip, LvqaError, Question
from lvqa.rerank import MultipleChoice, RerankRequest
from lvqa.session import VideoSession

TOP_WORDS = 8
"""How many of the likeliest words are kept."""
LABELS = (("Right", "Wrong"), ("Yes", "No"), ("True", "False"), ("A", "B"))
"""The pairs of labels in the paper's Figure 4."""
NEUTRAL = ("", "N/A")
"""Questions that ask for nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Depth:
    """What the sub-layers do to the states at which a vector is read: attention and MLP of each layer in turn."""

    similarity: np.ndarray
    """(n, 2 * layers) the paper's alpha: cosine of the residual stream before and after the sub-layer."""
    alignment: np.ndarray
    """(n, 2 * layers) its beta: cosine of the stream after it and the head's row of the word said in the end."""
    similarity_normed: np.ndarray
    """(n,) the last MLP's alpha if the final norm counts as part of it: the paper does not say."""
    alignment_normed: np.ndarray
    """(n,) the last MLP's beta, likewise."""


@dataclass(frozen=True, slots=True)
class Words:
    """What a prompt makes the model say: the likeliest words, with their probabilities over the whole vocabulary."""

    prompt: str
    """The prompt, as `embedding.prompt` names it."""
    source: str
    """What the prompt is about: "clips" or "query"."""
    mean: tuple[tuple[str, float], ...]
    """The likeliest words by the mean over all inputs."""
    each: tuple[tuple[tuple[str, float], ...], ...]
    """The likeliest words for each input."""


@dataclass(frozen=True, slots=True)
class Bias:
    """How likely two labels are where nothing speaks for either, over the whole vocabulary."""

    labels: tuple[str, str]
    context: str
    probabilities: tuple[float, float]
    """Their mean over the clips; together less than 1 where the model would rather say something else."""
    deviations: tuple[float, float]
    """Their standard deviations over the clips; 0 without any clip."""


@dataclass(frozen=True, slots=True)
class Framing:
    """How the model judges clips of which it is known whether they match, in one framing of reranking.

    For each question the clip in the middle of its evidence is scored, and the one half a video away.
    """

    labels: tuple[str, str]
    matching: tuple[float, ...]
    """The score of each question's matching clip: how likely the label is that says that it matches."""
    others: tuple[float, ...]
    """The scores of the other clips, in the same order."""

    @property
    def correct(self) -> tuple[bool, ...]:
        """Whether the model judged each clip correctly: those that match first."""
        return (*(score > 0.5 for score in self.matching), *(score < 0.5 for score in self.others))

    @property
    def preferred(self) -> tuple[bool, ...]:
        """Whether the matching clip has the higher score, for each question: a preference for a label cancels."""
        return tuple(one > other for one, other in zip(self.matching, self.others, strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Diagnostics:
    """All diagnostics of a model on one video."""

    model: str
    revision: str
    video: Path
    query: str | None
    clips: tuple[tuple[float, float], ...]
    """The (start_seconds, end_seconds) of each clip that was read."""
    depth: dict[str, Depth]
    """The depth of the "clips", and of the "query" if there is one."""
    words: tuple[Words, ...]
    bias: tuple[Bias, ...]
    framings: tuple[Framing, ...]
    """One for each framing; empty where no questions are known."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        plain = asdict(self) | {"video": str(self.video)}
        for depth in plain["depth"].values():
            depth |= {name: np.round(values, 6).tolist() for name, values in depth.items()}
        return plain


def diagnose_model(
    qa: LongVideoQA,
    path: str | Path,
    *,
    query: str | None = None,
    num_clips: int = 16,
    questions: Sequence[Question] = (),
) -> Diagnostics:
    """Diagnose the model on evenly spaced clips of a video. Nothing is indexed.

    Args:
        qa: The model and settings. States are diagnosed under the settings' embedding prompt, words under FreeRet's and
            E5-V's.
        path: The video file.
        query: A question whose states are diagnosed too.
        num_clips: How many clips; fewer if the video has fewer.
        questions: Framings are diagnosed on those whose evidence is no longer than a clip.
    """
    with qa.open(path) as session:
        return _diagnose(qa, session, query, num_clips, questions)


def _diagnose(
    qa: LongVideoQA, session: VideoSession, query: str | None, num_clips: int, questions: Sequence[Question]
) -> Diagnostics:
    model = qa.model
    clips = qa.indexers[0].clips_of(session)
    count = min(num_clips, len(clips))
    sampled = [clips[(2 * i + 1) * len(clips) // (2 * count)] for i in range(count)]
    tokens = list(session.clip_reader().read(sampled))
    embedder = qa.spec.embedder
    depth = {"clips": depth_of(model, [embedder.clip_prompt(clip) for clip in tokens])}
    if query is not None:
        depth["query"] = depth_of(model, [embedder.query_prompt(query)])
    local = [question for question in questions if _is_local(question, qa.config.video.clip_seconds)]
    return Diagnostics(
        model=model.name,
        revision=model.revision,
        video=session.video.path,
        query=query,
        clips=tuple((clip.start_seconds, clip.end_seconds) for clip in sampled),
        depth=depth,
        words=tuple(_words(model, tokens, query, embedder.wording)),
        bias=(*bias_of_words(model), *_bias_of_options(model, tokens, embedder.wording)),
        framings=tuple(_framings(qa, session, clips, local)),
    )


def depth_of(model: Model, inputs: Sequence[Prompt]) -> Depth:
    """Return alpha and beta after every sub-layer, for each prompt."""
    states = model.sublayer_states(inputs)
    normed = model.lm_head.normed(states[:, -1])
    tokens = model.lm_head.log_probs(states[:, -1]).argmax(dim=1).tolist()
    stream, last = _unit(states), _unit(normed)
    rows = _unit(model.lm_head.rows(tokens))[:, None]  # (n, 1, dim)
    return Depth(
        similarity=(stream[:, 1:] * stream[:, :-1]).sum(-1),
        alignment=(stream[:, 1:] * rows).sum(-1),
        similarity_normed=(last * stream[:, -2]).sum(-1),
        alignment_normed=(last * rows[:, 0]).sum(-1),
    )


def _unit(states: Any) -> np.ndarray:
    """Tensors (..., dim) as vectors of unit length."""
    array = states.cpu().numpy().astype(np.float64)
    unit: np.ndarray = array / np.linalg.norm(array, axis=-1, keepdims=True)
    return unit


def _words(model: Model, clips: Sequence[ClipTokens], query: str | None, wording: str) -> list[Words]:
    words = []
    for name in ("e5v", "freeret"):
        embedder = Embedder(prompt=name, wording=wording)
        words.append(_words_of(model, [embedder.clip_prompt(clip) for clip in clips], name, "clips"))
        if query is not None:
            words.append(_words_of(model, [embedder.query_prompt(query)], name, "query"))
    return words


def _words_of(model: Model, inputs: Sequence[Prompt], prompt: str, source: str) -> Words:
    probabilities = _next_word(model, inputs)

    def top(row: np.ndarray) -> tuple[tuple[str, float], ...]:
        best = np.argsort(-row, kind="stable")[:TOP_WORDS].tolist()
        return tuple((model.lm_head.text(token), round(float(row[token]), 6)) for token in best)

    return Words(prompt, source, top(probabilities.mean(axis=0)), tuple(map(top, probabilities)))


def _next_word(model: Model, inputs: Sequence[Prompt]) -> np.ndarray:
    """(n, vocabulary) how likely each token is as the reply's first."""
    log_probs = model.lm_head.log_probs(model.last_hidden_states(inputs, state="mlp"))
    return np.exp(log_probs.cpu().numpy().astype(np.float64))


def bias_of_words(model: Model) -> list[Bias]:
    """Return how likely LABELS are without a context (Figure 4): after the bare instruction, in both orders.

    The logits of the two orders are averaged. A pair of labels that begin with the same token is left out.
    """
    biases = []
    for first, second in LABELS:
        try:
            tokens = model.first_tokens((first, second))
        except LvqaError:
            continue
        orders = [(prompts.reply_only(first, second),), (prompts.reply_only(second, first),)]
        # The softmax of averaged logits is the geometric mean of the probabilities, scaled to a sum of 1.
        averaged = np.sqrt(_next_word(model, orders).prod(axis=0))
        averaged /= averaged.sum()
        biases.append(_bias((first, second), "nothing but the instruction", averaged[None, tokens]))
    return biases


def _bias_of_options(model: Model, clips: Sequence[ClipTokens], wording: str) -> list[Bias]:
    """The reranking prompt with a question that asks for nothing, without a clip and with each."""
    labels = prompts.YES_OPTION, prompts.NO_OPTION
    tokens = model.first_tokens(labels)
    biases = []
    for question in NEUTRAL:
        clip_first = model.rerank_layout == "clip_first"
        before, after = prompts.rerank(question, clip_first=clip_first, wording=wording)
        context = f"question {question!r}" if question else "empty question"
        bare = _next_word(model, [(before, after)])
        with_clips = _next_word(model, [(before, clip, after) for clip in clips])
        biases.append(_bias(labels, f"reranking, {context}, no clip", bare[:, tokens]))
        biases.append(_bias(labels, f"reranking, {context}, each clip", with_clips[:, tokens]))
    return biases


def _is_local(question: Question, seconds: float) -> bool:
    span = question.evidence_seconds
    return span is not None and span[1] - span[0] <= seconds


def _framings(
    qa: LongVideoQA, session: VideoSession, clips: Sequence[Clip], questions: Sequence[Question]
) -> Iterator[Framing]:
    """Yield Figure 4, left: every framing on the same clips. A pair of labels that begin alike is left out."""
    pairs = [(question, _matching_and_other(clips, question)) for question in questions]
    if not pairs:
        return
    reader = session.clip_reader(PrefixCache(MemoryShares.of(qa.model, qa.config.model.memory_mib).clips))
    requests = [
        RerankRequest(question.text, [Candidate(matching, 0.0), Candidate(other, 0.0)], reader)
        for question, (matching, other) in pairs
    ]
    for name, labels in prompts.LABELS.items():
        try:
            qa.model.first_tokens(labels)
        except LvqaError:
            continue
        reranker = MultipleChoice(labels=name, layout=qa.model.rerank_layout, wording=qa.spec.embedder.wording)
        scores: list[tuple[float, float]] = []
        for request, (_, (matching, other)) in zip(requests, pairs, strict=True):
            (candidates,) = reranker.rerank(qa.model, [request])
            of_clip = {candidate.clip: candidate.rerank_score or 0.0 for candidate in candidates}
            scores.append((of_clip[matching], of_clip[other]))
        yield Framing(labels, *zip(*scores, strict=True))


def _matching_and_other(clips: Sequence[Clip], question: Question) -> tuple[Clip, Clip]:
    """Return the clip in the middle of the question's evidence, and the one half a video away."""
    assert question.evidence_seconds is not None
    middle = sum(question.evidence_seconds) / 2
    i = max(i for i, clip in enumerate(clips) if clip.start_seconds <= middle or i == 0)
    return clips[i], clips[(i + len(clips) // 2) % len(clips)]


def _bias(labels: tuple[str, str], context: str, probabilities: np.ndarray) -> Bias:
    first, second = probabilities.mean(axis=0).round(6).tolist()
    spread = probabilities.std(axis=0).round(6).tolist()
    return Bias(labels, context, (first, second), (spread[0], spread[1]))
