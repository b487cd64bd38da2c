"""What every reranker promises, as checks: for those of RERANKERS in the tests, for your own by `lvqa check-plugin`.

They run on the embedded model and clips of noise: nothing depends on what the model knows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from lvqa.models import Model, load_model
from lvqa.plugins import run_checks
from lvqa.records import Candidate, Clip, LvqaError
from lvqa.rerank.protocol import Reranker, RerankRequest, fault, rerank_each

if TYPE_CHECKING:
    from lvqa.models.prefix import PrefixCache
    from lvqa.models.prompt import ClipTokens

NUMBERS = (1, 2, 18)
"""Of candidates; none is a multiple of 7, by which they are shuffled."""
TOLERANCE = 1e-4
"""By which scores may differ between batches: sums are rounded in another order."""
BATCH_TOKENS = (16384, 1)
"""All clips in one batch, and each alone."""

Make = Callable[[], Reranker]


def candidates_like(n: int, *, equal: bool = False) -> list[Candidate]:
    """n clips, best first by embedding, which is not the order of time; the last clip of the video is shorter."""
    order = [7 * place % n for place in range(n)]
    clips = [Clip("v", 16.0 * place, 16.0 * place + (16 if place < n - 1 else 6)) for place in order]
    return [Candidate(clip, 0.25 if equal else 0.9 - 0.01 * rank) for rank, clip in enumerate(clips)]


def clip_tokens_for(model: Model) -> Callable[[Sequence[Clip]], Iterator[ClipTokens]]:
    """Noise in the place of clips, the same for a clip each time. LvqaError for clips that are not in time order."""
    import torch

    from lvqa.models.prompt import ClipTokens

    def clip_tokens(clips: Sequence[Clip]) -> Iterator[ClipTokens]:
        if list(clips) != sorted(clips):
            raise LvqaError("it asks for clips that are not in the order of time (clip_tokens)")
        for clip in clips:
            lots = torch.Generator().manual_seed(int(clip.start_seconds))
            pairs = 2 if clip.end_seconds - clip.start_seconds > 8 else 1
            yield ClipTokens(torch.randn(pairs, 4, model.dim, generator=lots), 2, 2)

    return clip_tokens


@functools.lru_cache(maxsize=len(BATCH_TOKENS))
def _model(max_batch_tokens: int) -> Model:
    return load_model("tiny", device="cpu", max_batch_tokens=max_batch_tokens)


def _reranked(
    make: Make,
    candidates: Sequence[Candidate],
    *,
    query: str = "What does the man in the red coat do?",
    batch_tokens: int = BATCH_TOKENS[0],
    beginnings: PrefixCache | None = None,
) -> list[Candidate]:
    """The answer; LvqaError if it is none."""
    model = _model(batch_tokens)
    found = make().rerank(model, query, candidates, clip_tokens_for(model), beginnings)
    if wrong := fault(candidates, found):
        raise LvqaError(f"it gives {wrong}")
    return found


def _scores_differ(one: Sequence[Candidate], other: Sequence[Candidate]) -> bool:
    """Whether a clip has a score in only one of them, or another one, by more than rounding."""
    first, second = ({candidate.clip: candidate.rerank_score for candidate in some} for some in (one, other))
    return any(
        score is not second[clip] and (None in (score, second[clip]) or abs(score - second[clip]) > TOLERANCE)  # type: ignore[operator]
        for clip, score in first.items()
    )


def _same_clips(make: Make) -> str | None:
    """The same clips, each once, best first, with finite scores; what was given is left as it was."""
    for n in NUMBERS:
        for candidates in (candidates_like(n), candidates_like(n, equal=True)):
            given = list(candidates)
            _reranked(make, given)
            if given != candidates:
                return "it changes the list of candidates that it was given"
    return None


def _same_again(make: Make) -> str | None:
    """The same input gives the same, whatever was asked in between."""
    reranker, candidates = make(), candidates_like(5)
    first = _reranked(lambda: reranker, candidates)
    _reranked(lambda: reranker, candidates, query="Where is the dog?")
    again = _reranked(lambda: reranker, candidates)
    return None if first == again == _reranked(make, candidates) else "the same input gives another answer"


def _any_batch(make: Make) -> str | None:
    """The scores do not depend on how many clips the model reads at a time."""
    candidates = candidates_like(5)
    one, other = (_reranked(make, candidates, batch_tokens=tokens) for tokens in BATCH_TOKENS)
    return "scores depend on the batches" if _scores_differ(one, other) else None


def _read_before(make: Make) -> str | None:
    """What earlier questions made the model read changes nothing."""
    from lvqa.models.prefix import PrefixCache

    candidates, kept = candidates_like(5), PrefixCache(1 << 30)
    plain = _reranked(make, candidates)
    _reranked(make, candidates, query="Where is the dog?", beginnings=kept)
    after = _reranked(make, candidates, beginnings=kept)
    return "scores depend on what was read before (beginnings)" if _scores_differ(plain, after) else None


def _together(make: Make) -> str | None:
    """Several queries at once, over pools that share clips, give what each gives alone."""
    from lvqa.models.prefix import PrefixCache

    model, candidates = _model(BATCH_TOKENS[0]), candidates_like(4)
    sought = [
        RerankRequest("What does the man in the red coat do?", candidates[:3]),
        RerankRequest("Where is the dog?", candidates[2:]),
    ]
    found = rerank_each(make(), model, sought, clip_tokens_for(model), PrefixCache(1 << 30))
    for one, pool in zip(sought, found, strict=True):
        if wrong := fault(one.candidates, pool):
            raise LvqaError(f"for one of several queries it gives {wrong}")
        if _scores_differ(_reranked(make, one.candidates, query=one.query), pool):
            return "a query among others has other scores than alone"
    return None


CHECKS: dict[str, Callable[[Make], str | None]] = {
    "the same clips, best first": _same_clips,
    "the same again": _same_again,
    "the same in any batch": _any_batch,
    "the same after other questions": _read_before,
    "the same beside other questions": _together,
}
"""Each gives None, or what is wrong."""


def check_reranker(name: str) -> dict[str, str | None]:
    """What is checked of the reranker of this name or file -> None, or what is wrong, in one line."""
    from lvqa.rerank import make_reranker

    make = functools.partial(make_reranker, name)
    make()  # what can't be made can't be checked
    return run_checks(CHECKS, make)
