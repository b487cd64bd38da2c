"""Check what every reranker promises: those of RERANKERS in the tests, your own by `lvqa check-plugin`.

The checks run on the embedded model and clips of noise: nothing depends on what the model knows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lvqa.models import Model, load_model
from lvqa.plugins import run_checks
from lvqa.records import Candidate, Clip, LvqaError
from lvqa.rerank.protocol import Reranker, RerankRequest, find_fault

if TYPE_CHECKING:
    from lvqa.models.prefix import PrefixCache
    from lvqa.models.prompt import ClipTokens

NUM_CANDIDATES = (1, 2, 18)
"""How many candidates are reranked; none is a multiple of 7, by which they are shuffled."""
TOLERANCE = 1e-4
"""By how much scores may differ between batches: sums are rounded in another order."""
BATCH_TOKENS = (16384, 1)
"""The batch sizes that are compared: all clips in one batch, and each alone."""

Make = Callable[[], Reranker]


def candidates_like(n: int, *, equal: bool = False) -> list[Candidate]:
    """Make n candidates, best first by embedding, which is not the order of time; the video's last clip is shorter."""
    order = [7 * i % n for i in range(n)]
    clips = [Clip("v", 16.0 * i, 16.0 * i + (16 if i < n - 1 else 6)) for i in order]
    return [Candidate(clip, 0.25 if equal else 0.9 - 0.01 * rank) for rank, clip in enumerate(clips)]


@dataclass(frozen=True, slots=True)
class NoiseReader:
    """Noise in place of clips, the same for a clip each time. LvqaError for clips that are not in the order of time."""

    model: Model
    prefix_cache: PrefixCache | None = None

    def read(self, clips: Sequence[Clip]) -> Iterator[ClipTokens]:
        """Yield two pairs of noise for each clip, one for a short one."""
        import torch

        from lvqa.models.prompt import ClipTokens

        if list(clips) != sorted(clips):
            raise LvqaError("it reads clips that are not in the order of time")
        for clip in clips:
            rng = torch.Generator().manual_seed(int(clip.start_seconds))
            pairs = 2 if clip.end_seconds - clip.start_seconds > 8 else 1
            yield ClipTokens(torch.randn(pairs, 4, self.model.dim, generator=rng), 2, 2)


@functools.lru_cache(maxsize=len(BATCH_TOKENS))
def _load_model(max_batch_tokens: int) -> Model:
    return load_model("tiny", device="cpu", max_batch_tokens=max_batch_tokens)


def _rerank(
    reranker: Reranker,
    candidates: Sequence[Candidate],
    *,
    query: str = "What does the man in the red coat do?",
    batch_tokens: int = BATCH_TOKENS[0],
    prefix_cache: PrefixCache | None = None,
) -> list[Candidate]:
    """Rerank the candidates of one query; LvqaError if the answer is none."""
    model = _load_model(batch_tokens)
    request = RerankRequest(query, candidates, NoiseReader(model, prefix_cache))
    return _checked(reranker.rerank(model, [request]), [request])[0]


def _checked(answers: object, requests: Sequence[RerankRequest]) -> list[list[Candidate]]:
    if not isinstance(answers, list) or len(answers) != len(requests):
        raise LvqaError("it does not give a list with an item for each request")
    for request, answer in zip(requests, answers, strict=True):
        if fault := find_fault(request.candidates, answer):
            raise LvqaError(f"it gives {fault}")
    return answers


def _scores_differ(first: Sequence[Candidate], second: Sequence[Candidate]) -> bool:
    """Return whether a clip has a score in only one of them, or another one, by more than rounding."""
    scores, others = ({candidate.clip: candidate.rerank_score for candidate in group} for group in (first, second))
    return any(
        score is not others[clip] and (None in (score, others[clip]) or abs(score - others[clip]) > TOLERANCE)  # type: ignore[operator]
        for clip, score in scores.items()
    )


def _gives_the_same_clips(make: Make) -> str | None:
    """Check that it gives the same clips, each once, best first, with finite scores, and leaves its input as it was."""
    for n in NUM_CANDIDATES:
        for candidates in (candidates_like(n), candidates_like(n, equal=True)):
            given = list(candidates)
            _rerank(make(), given)
            if given != candidates:
                return "it changes the list of candidates that it was given"
    return None


def _repeats_itself(make: Make) -> str | None:
    """Check that the same input gives the same, whatever was reranked in between."""
    reranker, candidates = make(), candidates_like(5)
    first = _rerank(reranker, candidates)
    _rerank(reranker, candidates, query="Where is the dog?")
    again = _rerank(reranker, candidates)
    return None if first == again == _rerank(make(), candidates) else "the same input gives another answer"


def _ignores_batches(make: Make) -> str | None:
    """Check that the scores do not depend on how many clips the model reads at a time."""
    candidates = candidates_like(5)
    first, second = (_rerank(make(), candidates, batch_tokens=tokens) for tokens in BATCH_TOKENS)
    return "scores depend on the batches" if _scores_differ(first, second) else None


def _ignores_the_prefix_cache(make: Make) -> str | None:
    """Check that what earlier questions made the model read changes nothing."""
    from lvqa.models.prefix import PrefixCache

    candidates, cache = candidates_like(5), PrefixCache(1 << 30)
    plain = _rerank(make(), candidates)
    _rerank(make(), candidates, query="Where is the dog?", prefix_cache=cache)
    after = _rerank(make(), candidates, prefix_cache=cache)
    return "scores depend on what was read before (prefix_cache)" if _scores_differ(plain, after) else None


def _ignores_other_requests(make: Make) -> str | None:
    """Check that requests in one call, whose pools share clips, get what each gets alone."""
    from lvqa.models.prefix import PrefixCache

    model, candidates = _load_model(BATCH_TOKENS[0]), candidates_like(4)
    reader = NoiseReader(model, PrefixCache(1 << 30))
    requests = [
        RerankRequest("What does the man in the red coat do?", candidates[:3], reader),
        RerankRequest("Where is the dog?", candidates[2:], reader),
    ]
    answers = _checked(make().rerank(model, requests), requests)
    for request, answer in zip(requests, answers, strict=True):
        if _scores_differ(_rerank(make(), request.candidates, query=request.query), answer):
            return "a request among others gets other scores than alone"
    return None


CHECKS: dict[str, Callable[[Make], str | None]] = {
    "the same clips, best first": _gives_the_same_clips,
    "the same again": _repeats_itself,
    "the same in any batch": _ignores_batches,
    "the same after other questions": _ignores_the_prefix_cache,
    "the same among other requests": _ignores_other_requests,
}
"""What is checked -> a function that gives None, or what is wrong."""


def check_reranker(name: str) -> dict[str, str | None]:
    """Check the reranker of this name or file.

    Returns:
        What is checked -> None, or what is wrong, in one line.
    """
    from lvqa.rerank import make_reranker

    make = functools.partial(make_reranker, name)
    make()  # what can't be made can't be checked
    return run_checks(CHECKS, make)
