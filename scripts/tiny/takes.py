"""The takes that training samples are about: short videos of a few takes, and runs of their frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lvqa import prompts
from lvqa.synthetic.script import FRAMES_PER_SECOND, TAKE_SECONDS, Take, VideoScript, random_take
from lvqa.synthetic.world import ATTRIBUTES
from tiny.samples import PairRun, PromptPart, SceneId, single_frame


def random_takes(rng: np.random.Generator, num: int) -> list[Take]:
    """Sample takes of 8 to 40 seconds, as in videos, but without a style."""
    ends = (rng.uniform(*TAKE_SECONDS, num) * FRAMES_PER_SECOND).round() / FRAMES_PER_SECOND
    return [random_take(rng, 0.0, end) for end in ends.tolist()]


@dataclass(frozen=True, slots=True)
class PoolTake(Take):
    """A take of a pool; the ids of its scenes are consecutive."""

    first_scene: SceneId = 0


class TakePool:
    """Takes to choose from, and short videos made of them. A take is chosen by its index."""

    def __init__(self, takes: Sequence[Take]) -> None:
        self.takes = takes
        self.scenes = [shot.scene for take in takes for shot in take.shots]
        self._first_scenes = np.cumsum([0, *(len(take.shots) for take in takes)]).tolist()
        subjects = [(index, subject) for index, take in enumerate(takes) for subject in take.subjects]
        self._take_of_subject = np.array([index for index, _ in subjects])
        self._values = np.array([[ATTRIBUTES[a].index(s.value(a)) for a in ATTRIBUTES] for _, s in subjects])
        """(subjects, attributes) the index of each subject's value in ATTRIBUTES."""

    # --- scenes and takes -------------------------------------------------------------------------------------------

    def sample_scene(self, rng: np.random.Generator) -> SceneId:
        """Sample one of all scenes."""
        return int(rng.integers(len(self.scenes)))

    def sample_scene_of(self, rng: np.random.Generator, take: int) -> SceneId:
        """Sample one of a take's scenes."""
        return int(rng.integers(self._first_scenes[take], self._first_scenes[take + 1]))

    def sample_takes(self, rng: np.random.Generator, num: int) -> list[int]:
        """Sample takes uniformly."""
        return [int(index) for index in rng.integers(len(self.takes), size=num)]

    def sample_similar_takes(self, rng: np.random.Generator, num: int) -> list[int]:
        """Sample a take, and others; most of them share attributes with a thing in it."""
        row = int(rng.integers(len(self._values)))
        takes = [int(self._take_of_subject[row])]
        columns = rng.permutation(len(ATTRIBUTES))[:3]
        while len(takes) < num:
            candidates = rng.integers(len(self._values), size=int(rng.choice([1, 4, 24, 48])))
            num_shared = (self._values[candidates][:, columns] == self._values[row, columns]).sum(1)
            take = int(self._take_of_subject[candidates[int(num_shared.argmax())]])
            if take not in takes:
                takes.append(take)
        return takes

    def sample_takes_with(self, rng: np.random.Generator, attribute: str, value: int, num: int) -> list[int]:
        """Sample takes that show the value with this index of an attribute."""
        candidates = np.flatnonzero(self._values[:, list(ATTRIBUTES).index(attribute)] == value)
        return [int(take) for take in self._take_of_subject[rng.choice(candidates, num)]]

    # --- short videos ------------------------------------------------------------------------------------------------

    def sample_script(self, rng: np.random.Generator, num_takes: int, joined: float = 0.25) -> VideoScript:
        """Sample a short video of similar takes in random order.

        Args:
            rng: The source of randomness.
            num_takes: How many takes the video has.
            joined: The share of the takes that follow without a gap.
        """
        takes = rng.permutation(self.sample_similar_takes(rng, num_takes)).tolist()
        return self.script(takes, gap=lambda: 0.0 if rng.random() < joined else float(rng.uniform(16, 900)))

    def script(self, takes: Sequence[int], gap: Callable[[], float]) -> VideoScript:
        """Put takes one after the other, with a gap of so many seconds before each; only their times change."""
        seconds, shifted = 0.0, []
        for index in takes:
            take = self.takes[index]
            seconds += round(gap() * FRAMES_PER_SECOND) / FRAMES_PER_SECOND
            shots = tuple(
                dataclasses.replace(
                    shot, start_seconds=shot.start_seconds + seconds, end_seconds=shot.end_seconds + seconds
                )
                for shot in take.shots
            )
            shifted.append(PoolTake(shots, take.event, self._first_scenes[index]))
            seconds = shifted[-1].end_seconds
        return VideoScript(0, tuple(shifted))

    # --- frames ------------------------------------------------------------------------------------------------------

    def frames(self, rng: np.random.Generator, script: VideoScript, *, single: bool) -> list[PromptPart]:
        """Sample frames of every shot, each run after its time.

        Args:
            rng: The source of randomness.
            script: A video made by this pool.
            single: Whether every run is a single frame; otherwise it is one pair or a few.
        """
        parts: list[PromptPart] = []
        many = len(script.takes) > 5
        length = 1 if single or many else int(rng.choice([1, 2, 4, 8], p=[0.45, 0.2, 0.15, 0.2]))
        for take in script.takes:
            for i, shot in enumerate(take.shots):
                scene = _scene_id(take, i)
                max_runs = max(1, int((shot.end_seconds - shot.start_seconds) // (2 * length)))
                num_runs = 1 if many or length >= 4 else min(max_runs, int(rng.choice([1, 2, 3])))
                step = (shot.end_seconds - shot.start_seconds) / num_runs
                for j in range(num_runs):
                    seconds = shot.start_seconds + step * (j + float(rng.uniform(0.05, 0.6)))
                    max_pairs = max(1, int((shot.end_seconds - seconds) // 2))
                    pairs = (single_frame(scene),) if single else (scene,) * min(length, max_pairs)
                    parts += [prompts.timestamp(seconds), PairRun(pairs)]
        return parts

    def clip(self, rng: np.random.Generator, script: VideoScript, take: Take, num_pairs: int) -> PairRun:
        """Sample neighbouring pairs that start in the take; they may run on into the takes that follow it."""
        shots = [
            (shot.start_seconds, _scene_id(other, i))
            for other in script.takes
            if take.start_seconds <= other.start_seconds <= take.start_seconds + 40
            for i, shot in enumerate(other.shots)
        ]
        start = float(rng.uniform(take.start_seconds, max(take.start_seconds + 0.1, take.end_seconds - num_pairs)))
        pairs = [max(s for s in shots if s[0] <= start + 2 * i)[1] for i in range(num_pairs)]
        return PairRun(tuple(pairs))


def _scene_id(take: Take, shot: int) -> SceneId:
    assert isinstance(take, PoolTake)
    return take.first_scene + shot


def shorten_take(take: Take, seconds: float) -> Take:
    """Return the first seconds of the take's first shot."""
    first = take.shots[0]
    shot = dataclasses.replace(first, end_seconds=min(first.end_seconds, first.start_seconds + seconds))
    return dataclasses.replace(take, shots=(shot,), event=None)
