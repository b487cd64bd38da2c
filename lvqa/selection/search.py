"""Selectors that draw lots: Q-Frame samples, FOCUS and T* search for what to look at next.

The last two were made to save looks at frames that have no score yet. An index has a score for all, so here they choose
the same frames as they would if each score were computed when it is asked for, and save nothing.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from lvqa.records import FrameSelection
from lvqa.selection.protocol import ByScores, SelectorInput, descending, evenly_spaced, lottery
from lvqa.selection.simple import best_apart
from lvqa.validation import require, require_number, require_positive, require_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class QFrameSelector(ByScores):
    """Q-Frame (ICCV 2025, arXiv 2506.22139) at a single resolution.

    Of `candidates` evenly spaced frames (all of the budget, if that is more) frames are drawn without replacement with
    chances softmax(logit_scale * score / temperature), by Gumbel's trick. The scale of the scores decides how much is
    left to chance: the default turns cosines into CLIP's logits. The paper's three resolutions are left out, so that
    equal budgets are equal numbers of frames; the released code draws without a seed. Evenly spaced frames if all
    scores are equal.
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

    def select(self, grid: SelectorInput) -> FrameSelection:
        if grid.is_flat:
            return grid.even()
        candidates = evenly_spaced(len(grid), max(self.candidates, grid.budget))
        # Relative to the best finite one, so that a frame without a score comes last and no two infinities meet.
        best = np.max(grid.scores, where=np.isfinite(grid.scores), initial=-np.inf)
        weights = np.zeros(len(candidates))
        if np.isfinite(best):
            with np.errstate(over="ignore"):
                weights = (np.minimum(grid.scores, best)[candidates] - best) * (self.logit_scale / self.temperature)
        lots = lottery(self.seed, grid.video_id, grid.question_id).random(len(candidates))
        return grid.selection(candidates[drawn(weights, lots)[: grid.budget]])


def drawn(log_weights: np.ndarray, lots: np.ndarray) -> np.ndarray:
    """(n,) places in an order drawn without replacement, chances in proportion to exp(log_weights) (n,).

    Gumbel's trick: the order of log_weights - log(-log lots), for lots (n,) even in (0, 1).
    """
    with np.errstate(divide="ignore"):  # a lot of 0 comes last
        return descending(log_weights - np.log(-np.log(lots)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusSelector(ByScores):
    """FOCUS (ICLR 2026, arXiv 2510.27280): clips are the arms of a bandit.

    Of every arm, `arm_seconds` long, eight at least, the middle frame and two by lot are looked at. The quarter of the
    arms with the largest upper bounds, four at least, is looked at again at one frame a second, half evenly and half by
    lot. A fifth of the budget are the best frames seen. The rest is shared evenly by the best quarter of the arms, 4 to
    32, and in each drawn with chances softmax(score / `temperature`), where a frame that was not looked at has the
    score of the nearest one that was; frames keep a distance of a quarter of their average spacing in the arm, one
    second at most, unless that spacing is 0.2 seconds or less. What is left goes to the highest scores. Scores are
    stretched to [0, 1]. Evenly spaced frames if all are equal.

    In the released code the second look leaves the bounds as they are; here, as in the paper, it changes an arm's mean
    and variance. The number of looks stays that of the first one: else the arms looked at twice would rank lower for
    it.
    """

    arm_seconds: float = 16.0
    temperature: float = 0.06
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self.arm_seconds, "arm_seconds")
        require_positive(self.temperature, "temperature")

    def select(self, grid: SelectorInput) -> FrameSelection:
        if grid.is_flat:
            return grid.even()
        scores, lots = grid.unit_scores(), lottery(self.seed, grid.video_id, grid.question_id)
        arms = _arms(grid.times_seconds, self.arm_seconds)
        seen = [_looked_at(arm, 1, 2, lots) for arm in arms]
        looks = np.array([len(frames) for frames in seen])
        quarter = min(len(arms), max(4, -(-len(arms) // 4)))
        for best in descending(upper_bounds([scores[frames] for frames in seen], looks))[:quarter]:
            seconds = np.ptp(grid.times_seconds[arms[best]]) + 1
            even = min(len(arms[best]), int(np.ceil(seconds / 2)))
            seen[best] = np.union1d(seen[best], _looked_at(arms[best], even, even, lots))
        best_arms = descending(upper_bounds([scores[frames] for frames in seen], looks))[: min(quarter, 32)]

        all_seen = np.concatenate(seen)
        chosen = dict.fromkeys(all_seen[descending(scores[all_seen])][: round(0.2 * grid.budget)].tolist())
        shares = np.array_split(np.arange(grid.budget - len(chosen)), len(best_arms))
        for arm, share in zip(best_arms, map(len, shares), strict=True):
            known = scores[_nearest(seen[arm], arms[arm])] / self.temperature
            order = arms[arm][drawn(known, lots.random(len(known)))]
            chosen |= dict.fromkeys(_kept_apart(grid.times_seconds, order, share, taken=set(chosen)))
        return grid.filled(chosen)


def upper_bounds(seen: list[np.ndarray], looks: np.ndarray) -> np.ndarray:
    """(arms,) FOCUS's index of each arm: m + sqrt(2 ln N v / n) + 3 ln N / n.

    m and v are mean and variance (1e-6 at least) of its scores `seen`, n its number of `looks` (arms,), N their sum.
    """
    means = np.array([scores.mean() for scores in seen])
    variances = np.maximum([scores.var() for scores in seen], 1e-6)
    log_looks = np.log(looks.sum())
    bounds: np.ndarray = means + np.sqrt(2 * log_looks * variances / looks) + 3 * log_looks / looks
    return bounds


def _arms(times_seconds: np.ndarray, arm_seconds: float) -> list[np.ndarray]:
    """The frames of each arm: equal parts of the grid, none of them empty."""
    n = len(times_seconds)
    num_arms = min(n, max(8, round(min(n, float(np.ptp(times_seconds)) / arm_seconds))))
    return np.array_split(np.arange(n), num_arms)


def _looked_at(arm: np.ndarray, num_even: int, num_drawn: int, lots: np.random.Generator) -> np.ndarray:
    """Frames of an arm, ascending: some evenly spaced, and some of the others by lot."""
    even = arm[evenly_spaced(len(arm), num_even)]
    others = np.setdiff1d(arm, even)
    return np.union1d(even, lots.choice(others, min(num_drawn, len(others)), replace=False))


def _nearest(known: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """For each of the frames the nearest known one, both ascending; of two as near the earlier."""
    after = np.clip(np.searchsorted(known, frames), 1, max(1, len(known) - 1))
    if len(known) == 1:
        return np.repeat(known, len(frames))
    before = known[after - 1]
    nearest: np.ndarray = np.where(frames - before <= known[after] - frames, before, known[after])
    return nearest


def _kept_apart(times_seconds: np.ndarray, order: np.ndarray, num_frames: int, *, taken: set[int]) -> list[int]:
    """The first so many of the frames that are not taken and far enough from each other; then the others."""
    spacing = float(np.ptp(times_seconds[order])) / max(1, num_frames)
    gap = min(1.0, 0.25 * spacing) if spacing > 0.2 else 0.0
    kept: list[int] = []
    for frame in order.tolist():
        if frame not in taken and all(abs(times_seconds[frame] - times_seconds[other]) >= gap for other in kept):
            kept.append(frame)
    left = [frame for frame in order.tolist() if frame not in taken and frame not in kept]
    return (kept + left)[:num_frames]


@dataclass(frozen=True, slots=True, kw_only=True)
class TStarSelector(ByScores):
    """T* (CVPR 2025, arXiv 2504.02259), its search steered by our scores instead of a detector's.

    A tenth of the frames is looked at, 1000 at most, in rounds of `per_round`: first evenly, then by lot where a smooth
    curve through the scores seen so far (a spline, then a sigmoid) is in its top quarter. The best quarter of a round
    spreads to the frames beside it, less with distance. Then the frames with the highest scores seen are taken. Scores
    are stretched to [0, 1]; at least as many frames as the budget are looked at; evenly spaced frames if all scores are
    equal.

    Where the released code differs: it stops once its detector has found all objects, draws the final frames by lot,
    and has no seed.
    """

    share: float = 0.1
    """Of the frames that are looked at."""
    per_round: int = 64
    apart: bool = False
    """Keep the final frames apart, as `nms` does."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_number(self.share, "share", 0, 1)
        require_whole(self.per_round, "per_round")
        require(isinstance(self.apart, bool), "apart", self.apart, "true or false")

    def select(self, grid: SelectorInput) -> FrameSelection:
        if grid.is_flat:
            return grid.even()
        lots = lottery(self.seed, grid.video_id, grid.question_id)
        looks = max(grid.budget, min(1000, int(self.share * len(grid))))
        found, promise = self._search(grid.unit_scores(), looks, lots)
        if self.apart:
            return grid.selection(best_apart(found, grid.budget))
        return grid.selection(np.lexsort((-promise, -found))[: grid.budget])

    def _search(self, scores: np.ndarray, looks: int, lots: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(n,) the scores as far as they were found, and (n,) the chances with which the next look would be drawn."""
        n = len(scores)
        found, seen = np.full(n, 1e-6), np.zeros(n, dtype=bool)
        chances = np.full(n, 1 / n)
        drawing = evenly_spaced(n, min(self.per_round, looks))
        while True:
            seen[drawing] = True
            found[drawing] = scores[drawing]
            _spread(found, drawing[scores[drawing] >= np.quantile(scores[drawing], 0.75)])
            chances = _promise(np.flatnonzero(seen), scores)
            left = min(self.per_round, looks - int(seen.sum()))
            if not left:
                return found, chances
            unseen = np.flatnonzero(~seen)
            weights = chances[unseen] + self.per_round / n
            best = unseen[weights >= np.quantile(weights, 0.75)]
            drawing = best[drawn(np.log(chances[best] + self.per_round / n), lots.random(len(best)))][:left]


def _spread(found: np.ndarray, frames: np.ndarray) -> None:
    """Raises what is found within five frames of these, by their score over the distance."""
    values = found[frames].copy()
    for distance in range(1, 6):
        for beside in (frames - distance, frames + distance):
            inside = (beside >= 0) & (beside < len(found))
            np.maximum.at(found, beside[inside], values[inside] / (distance + 1))


def _promise(seen: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(n,) sums to 1: a curve through the scores of the frames seen (ascending), bounded by a sigmoid."""
    from scipy.interpolate import UnivariateSpline

    frames = np.arange(len(scores))
    if len(seen) > 3:
        with warnings.catch_warnings():  # it says so where the curve can't be as smooth as asked
            warnings.simplefilter("ignore")
            curve = UnivariateSpline(seen, scores[seen], s=0.5)(frames)
    else:
        curve = np.interp(frames, seen, scores[seen])
    bounded = 1 / (1 + np.exp(-np.clip(curve, 1 / len(scores), 50)))
    chances: np.ndarray = bounded / bounded.sum()
    return chances
