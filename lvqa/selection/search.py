"""Selectors that sample at random: Q-Frame draws the frames, FOCUS and T* search for what to score next.

FOCUS and T* were made to save scoring of frames. An index has a score for all of them, so here they choose the frames
that they would choose if each score were computed on request, and save nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from lvqa.records import FrameSelection
from lvqa.selection.protocol import ScoreBased, SelectorInput, argsort_descending, evenly_spaced, seeded_rng
from lvqa.selection.simple import non_max_suppression
from lvqa.validation import require, require_number, require_positive, require_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class QFrameSelector(ScoreBased):
    """Q-Frame (ICCV 2025, arXiv 2506.22139) at a single resolution.

    Of `candidates` evenly spaced frames (as many as the budget, if that is more) frames are sampled without replacement
    with probabilities softmax(logit_scale * score / temperature), by Gumbel's trick. The scale of the scores decides
    how much is left to chance: the default turns cosines into CLIP's logits. The paper's three resolutions are left
    out, so that equal budgets are equal numbers of frames; the released code samples without a seed. Evenly spaced
    frames if all scores are equal.
    """

    logit_scale: float = 100.0
    temperature: float = 0.8
    """tau in the paper."""
    candidates: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self.logit_scale, "logit_scale")
        require_positive(self.temperature, "temperature")
        require_whole(self.candidates, "candidates")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        if inputs.is_flat:
            return inputs.evenly_spaced()
        candidates = evenly_spaced(len(inputs), max(self.candidates, inputs.budget))
        # Relative to the best finite one, so that a frame without a score comes last and no two infinities meet.
        best = np.max(inputs.scores, where=np.isfinite(inputs.scores), initial=-np.inf)
        logits = np.zeros(len(candidates))
        if np.isfinite(best):
            with np.errstate(over="ignore"):
                logits = (np.minimum(inputs.scores, best)[candidates] - best) * (self.logit_scale / self.temperature)
        uniforms = seeded_rng(self.seed, inputs.video_id, inputs.question_id).random(len(candidates))
        return inputs.selection(candidates[gumbel_order(logits, uniforms)[: inputs.budget]])


def gumbel_order(logits: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Return indices in an order sampled without replacement, with probabilities in proportion to exp(logits).

    This is Gumbel's trick: the descending order of logits - log(-log uniforms).

    Args:
        logits: (n,)
        uniforms: (n,) random numbers, uniform in [0, 1).
    """
    with np.errstate(divide="ignore"):  # an index whose uniform number is 0 comes last
        return argsort_descending(logits - np.log(-np.log(uniforms)))


TOP_FRACTION = 0.2
"""The fraction of the budget that FOCUS spends on the best frames of all arms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusSelector(ScoreBased):
    """FOCUS (ICLR 2026, arXiv 2510.27280): clips are the arms of a bandit.

    In every arm, `arm_seconds` long, eight at least, the middle frame and two at random are scored. The quarter of the
    arms with the largest upper bounds, four at least, is then scored at one frame a second, half evenly and half at
    random. A fifth of the budget are the best frames scored so far. The best quarter of the arms, 4 to 32, share the
    rest evenly. In each of them frames are sampled with probabilities softmax(score / `temperature`), where a frame
    that was not scored has the score of the nearest one that was; the frames keep a distance of a quarter of their
    average spacing in the arm, one second at most, unless that spacing is 0.2 seconds or less. The highest scores fill
    what is left. Scores are scaled to [0, 1]. Evenly spaced frames if all are equal.

    In the released code the second round leaves the bounds as they are; here, as in the paper, it changes an arm's mean
    and variance. The number of pulls stays that of the first round: else the arms of the second round would rank lower
    for it.
    """

    arm_seconds: float = 16.0
    temperature: float = 0.06
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self.arm_seconds, "arm_seconds")
        require_positive(self.temperature, "temperature")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        if inputs.is_flat:
            return inputs.evenly_spaced()
        scores, rng = inputs.normalized_scores(), seeded_rng(self.seed, inputs.video_id, inputs.question_id)
        arms = _split_into_arms(inputs.times_seconds, self.arm_seconds)
        scored = [_sample_arm(arm, 1, 2, rng) for arm in arms]
        pulls = np.array([len(frames) for frames in scored])
        quarter = min(len(arms), max(4, -(-len(arms) // 4)))
        for best in argsort_descending(upper_bounds([scores[frames] for frames in scored], pulls))[:quarter]:
            seconds = np.ptp(inputs.times_seconds[arms[best]]) + 1
            num_even = min(len(arms[best]), int(np.ceil(seconds / 2)))
            scored[best] = np.union1d(scored[best], _sample_arm(arms[best], num_even, num_even, rng))
        best_arms = argsort_descending(upper_bounds([scores[frames] for frames in scored], pulls))[: min(quarter, 32)]

        all_scored = np.concatenate(scored)
        best_scored = all_scored[argsort_descending(scores[all_scored])]
        chosen = dict.fromkeys(best_scored[: round(TOP_FRACTION * inputs.budget)].tolist())
        shares = np.array_split(np.arange(inputs.budget - len(chosen)), len(best_arms))
        for arm, share in zip(best_arms, map(len, shares), strict=True):
            logits = scores[_nearest(scored[arm], arms[arm])] / self.temperature
            order = arms[arm][gumbel_order(logits, rng.random(len(logits)))]
            chosen |= dict.fromkeys(_spaced_frames(inputs.times_seconds, order, share, exclude=set(chosen)))
        return inputs.fill_budget(chosen)


def upper_bounds(rewards: list[np.ndarray], pulls: np.ndarray) -> np.ndarray:
    """Return FOCUS's upper confidence bound (arms,) of each arm: m + sqrt(2 ln N v / n) + 3 ln N / n.

    Here m and v are the mean and the variance (1e-6 at least) of its rewards, n its number of pulls, N their sum.

    Args:
        rewards: The scores of the frames of each arm.
        pulls: (arms,)
    """
    means = np.array([scores.mean() for scores in rewards])
    variances = np.maximum([scores.var() for scores in rewards], 1e-6)
    log_pulls = np.log(pulls.sum())
    bounds: np.ndarray = means + np.sqrt(2 * log_pulls * variances / pulls) + 3 * log_pulls / pulls
    return bounds


def _split_into_arms(times_seconds: np.ndarray, arm_seconds: float) -> list[np.ndarray]:
    """Return the frames of each arm: equal parts of the video, none of them empty."""
    n = len(times_seconds)
    num_arms = min(n, max(8, round(min(n, float(np.ptp(times_seconds)) / arm_seconds))))
    return np.array_split(np.arange(n), num_arms)


def _sample_arm(arm: np.ndarray, num_even: int, num_random: int, rng: np.random.Generator) -> np.ndarray:
    """Return frames of an arm, ascending: some evenly spaced, and some of the others at random."""
    even = arm[evenly_spaced(len(arm), num_even)]
    others = np.setdiff1d(arm, even)
    return np.union1d(even, rng.choice(others, min(num_random, len(others)), replace=False))


def _nearest(scored: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Return for each of the frames the nearest scored one, both ascending; of two as near the earlier."""
    after = np.clip(np.searchsorted(scored, frames), 1, max(1, len(scored) - 1))
    if len(scored) == 1:
        return np.repeat(scored, len(frames))
    before = scored[after - 1]
    nearest: np.ndarray = np.where(frames - before <= scored[after] - frames, before, scored[after])
    return nearest


def _spaced_frames(times_seconds: np.ndarray, order: np.ndarray, num_frames: int, *, exclude: set[int]) -> list[int]:
    """Return the first frames of the order that are not excluded and far enough from each other; then the others."""
    spacing = float(np.ptp(times_seconds[order])) / max(1, num_frames)
    gap = min(1.0, 0.25 * spacing) if spacing > 0.2 else 0.0
    spaced: list[int] = []
    for frame in order.tolist():
        if frame not in exclude and all(abs(times_seconds[frame] - times_seconds[other]) >= gap for other in spaced):
            spaced.append(frame)
    rest = [frame for frame in order.tolist() if frame not in exclude and frame not in spaced]
    return (spaced + rest)[:num_frames]


@dataclass(frozen=True, slots=True, kw_only=True)
class TStarSelector(ScoreBased):
    """T* (CVPR 2025, arXiv 2504.02259), its search steered by our scores instead of a detector's.

    A tenth of the frames is scored, 1000 at most, in rounds of `per_round`: first evenly, then at random where a smooth
    curve through the scores so far (a spline, then a sigmoid) is in its top quarter. The best quarter of a round
    spreads to the neighbouring frames, less with distance. The frames with the highest scores of the search are chosen.
    Scores are scaled to [0, 1]; at least as many frames as the budget are scored; evenly spaced frames if all scores
    are equal.

    The released code differs: it stops once its detector has found all objects, samples the final frames at random, and
    has no seed.
    """

    share: float = 0.1
    """The share of the frames that is scored."""
    per_round: int = 64
    apart: bool = False
    """Whether the final frames keep apart, as in `nms`."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_number(self.share, "share", 0, 1)
        require_whole(self.per_round, "per_round")
        require(isinstance(self.apart, bool), "apart", self.apart, "true or false")

    def select(self, inputs: SelectorInput) -> FrameSelection:
        if inputs.is_flat:
            return inputs.evenly_spaced()
        rng = seeded_rng(self.seed, inputs.video_id, inputs.question_id)
        num_scored = max(inputs.budget, min(1000, int(self.share * len(inputs))))
        estimates, probabilities = self._search(inputs.normalized_scores(), num_scored, rng)
        if self.apart:
            return inputs.selection(non_max_suppression(estimates, inputs.budget))
        return inputs.selection(np.lexsort((-probabilities, -estimates))[: inputs.budget])

    def _search(self, scores: np.ndarray, num_scored: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the score estimates (n,) after the search, and the sampling probabilities (n,) of a next round."""
        n = len(scores)
        estimates, is_scored = np.full(n, 1e-6), np.zeros(n, dtype=bool)
        batch = evenly_spaced(n, min(self.per_round, num_scored))
        while True:
            is_scored[batch] = True
            estimates[batch] = scores[batch]
            _spread(estimates, batch[scores[batch] >= np.quantile(scores[batch], 0.75)])
            probabilities = _sampling_probabilities(np.flatnonzero(is_scored), scores)
            num_left = min(self.per_round, num_scored - int(is_scored.sum()))
            if not num_left:
                return estimates, probabilities
            rest = np.flatnonzero(~is_scored)
            weights = probabilities[rest] + self.per_round / n
            best = rest[weights >= np.quantile(weights, 0.75)]
            logits = np.log(probabilities[best] + self.per_round / n)
            batch = best[gumbel_order(logits, rng.random(len(best)))][:num_left]


def _spread(estimates: np.ndarray, frames: np.ndarray) -> None:
    """Raise the estimates within five frames of these, by their score over the distance."""
    values = estimates[frames].copy()
    for distance in range(1, 6):
        for neighbours in (frames - distance, frames + distance):
            inside = (neighbours >= 0) & (neighbours < len(estimates))
            np.maximum.at(estimates, neighbours[inside], values[inside] / (distance + 1))


def _sampling_probabilities(scored: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return probabilities (n,): a curve through the scores of the scored frames (ascending), after a sigmoid."""
    from scipy.interpolate import UnivariateSpline

    frames = np.arange(len(scores))
    if len(scored) > 3:
        with warnings.catch_warnings():  # scipy warns where the curve can't be as smooth as requested
            warnings.simplefilter("ignore")
            curve = UnivariateSpline(scored, scores[scored], s=0.5)(frames)
    else:
        curve = np.interp(frames, scored, scores[scored])
    sigmoid = 1 / (1 + np.exp(-np.clip(curve, 1 / len(scores), 50)))
    probabilities: np.ndarray = sigmoid / sigmoid.sum()
    return probabilities
