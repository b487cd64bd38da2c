"""The lessons: conversations about takes, as token sequences with the places where the model is to be right.

Every sequence has the form the product uses: the chat template, the prompts of `prompts.py`, and visual blocks of frame
pairs. A lesson holds scenes, not pixels: training puts what the vision tower sees of them in their places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerFast

from lvqa import prompts
from lvqa.records import Question
from lvqa.synthetic import language
from lvqa.synthetic.build import token_id
from lvqa.synthetic.questions import OF_ATTRIBUTE, Asker, Draft, fitting
from lvqa.synthetic.script import FRAMES_PER_SECOND, Film, Take
from lvqa.synthetic.world import ATTRIBUTES, Subject

ROWS, COLUMNS = 3, 4
"""Merged visual tokens of a pair: frames of 84 x 112."""

TEMPORAL_STEP = 4
"""Positions between neighbouring pairs: two seconds at two positions a second, as Qwen2.5-VL counts."""

SENTENCES = 0.2
"""Of the answers, those that are sentences."""

SceneId = int
"""Index into `Teacher.scenes`."""


@dataclass(slots=True)
class Target:
    """A position whose next token is judged, and the tokens that are right there, evenly."""

    position: int
    tokens: tuple[int, ...]
    task: str


@dataclass(slots=True)
class Lesson:
    """One sequence. Visual tokens stand at `ids == video token`, pair after pair in the order of `pairs`."""

    ids: list[int] = field(default_factory=list)
    pairs: list[SceneId] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Block:
    """A run of frame pairs, each of one scene."""

    pairs: tuple[SceneId, ...]


Part = str | Block


def alone(scene: SceneId) -> SceneId:
    """Names a pair that is one frame of the scene shown twice; `alone` of that is the scene again."""
    return ~scene


class Teacher:
    """Writes lessons about the given takes."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, takes: Sequence[Take], *, seed: int) -> None:
        self.takes = takes
        self.scenes = [shot.scene for take in takes for shot in take.shots]
        self.rng = np.random.default_rng(seed)
        self._first_scene = np.cumsum([0, *(len(take.shots) for take in takes)]).tolist()
        subjects = [(number, subject) for number, take in enumerate(takes) for subject in take.subjects]
        self._take_of_subject = np.array([number for number, _ in subjects])
        self._words = np.array([[ATTRIBUTES[a].index(s.value(a)) for a in ATTRIBUTES] for _, s in subjects])
        self._video = token_id(tokenizer, "<|video_pad|>")
        self._block_start = token_id(tokenizer, "<|vision_start|>")
        self._block_end = token_id(tokenizer, "<|vision_end|>")
        self._end = token_id(tokenizer, "<|im_end|>")
        self._encode: Callable[[str], list[int]] = lru_cache(100_000)(
            lambda text: tokenizer(text, add_special_tokens=False).input_ids
        )
        self.tasks: dict[str, Callable[[], Lesson]] = {
            "match drill": self.match_drill,
            "scene drill": self.scene_drill,
            "answer": self.answer,
            "course": self.course,
            "most": self.most,
            "rerank": self.rerank,
            "clip word": self.clip_word,
            "query word": self.query_word,
            "caption": self.caption,
        }

    # --- drills: a dozen verdicts in one sequence -------------------------------------------------------------------

    def match_drill(self, num_items: int = 12) -> Lesson:
        """A clip, then descriptions of one to four words, each followed by A if all holds for one thing, B if not."""
        lesson = self._open()
        scene = self._scene_id()
        subjects = self.scenes[scene].subjects
        self._user(lesson, (Block((scene,)),))
        for _ in range(num_items):
            attributes = self._attributes(int(self.rng.integers(1, 5)))
            said = self._said(self._one_of(subjects), attributes)
            if self.rng.random() < 0.5:
                wrong = str(self.rng.choice(attributes))
                said[wrong] = str(self.rng.choice([value for value in ATTRIBUTES[wrong] if value != said[wrong]]))
            if len(subjects) > 1 and self.rng.random() < 0.3:  # of one thing this, of another that
                mixed = str(self.rng.choice(attributes))
                said[mixed] = self._one_of(subjects).value(mixed)
            fits = any(subject.fits(said) for subject in subjects)
            if self.rng.random() < 0.5:
                self._text(lesson, "\n" + language.describe(said))
            else:
                self._words_here(lesson, list(said.values()))
            self._verdict_here(lesson, "A" if fits else "B", f"match drill {len(attributes)}")
        return lesson

    def scene_drill(self, num_items: int = 12, num_scenes: Sequence[int] = (1, 2, 3, 3, 4, 4, 5)) -> Lesson:
        """Clips with their times, then often: an attribute's name, one to four words of a thing, and its value."""
        lesson = self._open()
        takes = self._takes_alike(int(self.rng.choice(num_scenes)))
        scenes = [self._scene_of(take) for take in self.rng.permutation(takes).tolist()]
        parts: list[Part] = []
        seconds = 0.0
        for scene in scenes:
            seconds += float(self.rng.uniform(2, 900))
            parts += [prompts.timestamp(seconds), Block((scene,))]
        self._user(lesson, parts)
        subjects = [subject for scene in scenes for subject in self.scenes[scene].subjects]
        for _ in range(num_items):
            asked, said, value = self._ask_briefly(subjects)
            if asked in OF_ATTRIBUTE and self.rng.random() < 0.5:
                number = int(self.rng.integers(language.num_wordings(asked, held_out=False)))
                self._text(lesson, "\n" + language.wording(asked, number, thing=language.describe(said)))
            else:
                self._words_here(lesson, [asked, *said.values()])
            self._verdict_here(lesson, value, f"scene drill {min(4, len(scenes))}")
        return lesson

    def _ask_briefly(self, subjects: Sequence[Subject]) -> tuple[str, dict[str, str], str]:
        while True:
            asked, *given = self._attributes(2 + int(self.rng.integers(4)))
            if "sign" in given and self.rng.random() < 0.4:  # the hardest to read from the right one of many scenes
                given[given.index("sign")], asked = asked, "sign"
            said = self._said(self._one_of(subjects), given)
            values = {subject.value(asked) for subject in subjects if subject.fits(said)}
            if len(values) == 1:
                return asked, said, values.pop()

    # --- the product's questions ------------------------------------------------------------------------------------

    def answer(self, num_takes: Sequence[int] = (1, 2, 3, 4, 4, 5), num_turns: int = 5) -> Lesson:
        """Questions about one moment, on frames of a few takes that come near each other."""
        kinds = {"attribute": 0.72, "beside": 0.1, "event": 0.18}
        return self._questions(self._film(int(self.rng.choice(num_takes))), kinds, num_turns)

    def course(self, num_takes: Sequence[int] = (2, 3, 4, 5), num_turns: int = 4) -> Lesson:
        """Questions about times, and about what follows, on frames of a few takes."""
        kinds = {"attribute": 0.1, "at": 0.3, "when": 0.2, "after": 0.4}
        return self._questions(self._film(int(self.rng.choice(num_takes)), joined=0.6), kinds, num_turns)

    def _questions(self, film: Film, kinds: Mapping[str, float], num_turns: int) -> Lesson:
        lesson = self._open()
        asker = Asker(film, self.rng)
        drafts: list[Draft] = []
        for _ in range(8 * num_turns):
            kind = str(self.rng.choice(list(kinds), p=list(kinds.values())))
            draft = asker.kinds[kind][1]()
            if draft is not None:
                drafts.append(draft)
            if len(drafts) == num_turns:
                break
        if not drafts:
            return self._questions(self._film(len(film.takes), joined=1.0), kinds, num_turns)
        shows_motion = any(draft.asked == "motion" or "motion" in draft.said for draft in drafts)
        parts = self._frames(film, single=not shows_motion and self.rng.random() < 0.3)
        many = ", three takes or more" if len(film.takes) > 2 else ""
        for turn, draft in enumerate(drafts):
            kind = draft.asked if draft.asked not in OF_ATTRIBUTE else "at" if len(draft.tags) > 1 else "answer"
            prompt, reply = self._asked(draft)
            self._user(lesson, (*parts, prompt) if turn == 0 else (prompt,))
            self._reply(lesson, reply, f"{kind}{many}")
        return lesson

    def most(self, num_takes: Sequence[int] = (6, 10, 16, 24)) -> Lesson:
        """What is seen most, on single frames of many takes."""
        lesson = self._open()
        asked = str(self.rng.choice(["place", "shape", "colour"]))
        value = int(self.rng.integers(len(ATTRIBUTES[asked])))
        num = int(self.rng.choice(num_takes))
        with_it = np.flatnonzero(self._words[:, list(ATTRIBUTES).index(asked)] == value)
        num_with = max(2, round(num * float(self.rng.uniform(0.3, 0.6))))
        takes = [
            *self._take_of_subject[self.rng.choice(with_it, num_with)].tolist(),
            *self._random_takes(num - num_with),
        ]
        film = self._timed(self.rng.permutation(takes).tolist(), gap=lambda: float(self.rng.uniform(20, 300)))
        film = dataclasses.replace(film, takes=tuple(self._first_seconds(take, 4.0) for take in film.takes))
        draft = None
        while draft is None:
            draft = Asker(film, self.rng).kinds["most"][1]()
            if draft is None and not self.rng.integers(4):
                return self.most(num_takes)
        prompt, reply = self._asked(draft)
        self._user(lesson, (*self._frames(film, single=bool(self.rng.integers(2))), prompt))
        self._reply(lesson, reply, "most")
        return lesson

    def _asked(self, draft: Draft) -> tuple[str, str]:
        """The product's prompt, and what is to be said: a word or a sentence."""
        question = Question(draft.text)
        if self.rng.random() >= SENTENCES:
            return prompts.short_answer(question), draft.right
        value_of = next((a for a in ATTRIBUTES if draft.right in ATTRIBUTES[a]), draft.asked)
        return prompts.answer(question), language.sentence(value_of, draft.right)

    def rerank(self) -> Lesson:
        """The product's reranking prompt: a question, and a clip that has what it names, or nearly, or not."""
        lesson = self._open()
        draft = None
        while draft is None or not draft.said:
            film = self._film(4, joined=0.6)
            asker = Asker(film, self.rng)
            draft = asker.kinds[
                str(self.rng.choice(["attribute", "beside", "event", "when", "after"], p=[0.6, 0.1, 0.1, 0.1, 0.1]))
            ][1]()
        said = draft.said
        takes = {bool(fitting(take, said)): take for take in self.rng.permutation(np.array(film.takes, dtype=object))}
        fits = bool(self.rng.integers(2)) and True in takes
        take = takes.get(fits, film.takes[0])
        clip = self._clip(film, take, int(self.rng.choice([1, 4, 8, 8])))
        fits = any(subject.fits(said) for pair in clip.pairs for subject in self.scenes[pair].subjects)
        before, after = prompts.rerank(draft.text, clip_first=True)
        self._user(lesson, (before, clip, after))
        self._reply(lesson, prompts.YES_OPTION if fits else prompts.NO_OPTION, "rerank")
        return lesson

    def clip_word(self) -> Lesson:
        """One word for a clip: any of the words that hold for it."""
        lesson = self._open()
        film = self._film(1)
        clip = self._clip(film, film.takes[0], int(self.rng.integers(1, 9)))
        subjects = [subject for pair in clip.pairs for subject in self.scenes[pair].subjects]
        words = {subject.value(attribute) for subject in subjects for attribute in ATTRIBUTES}
        self._user(lesson, (clip, self._word_prompt(prompts.CLIP)))
        self._word_reply(lesson, words, "clip word")
        return lesson

    def query_word(self) -> Lesson:
        """One word for a question or a caption: any of the words of the world that it holds."""
        lesson = self._open()
        draft = None
        while draft is None or not draft.said:
            asker = Asker(self._film(4, joined=0.5), self.rng)
            draft = asker.kinds[str(self.rng.choice(["attribute", "beside", "event", "when", "after"]))][1]()
        self._user(lesson, (f"{draft.text}\n{self._word_prompt(prompts.QUERY)}",))
        self._word_reply(lesson, set(draft.said.values()), "query word")
        return lesson

    def caption(self) -> Lesson:
        """The whole clip in one sentence."""
        lesson = self._open()
        scene = self._scene_id()
        clip = Block((scene,) * int(self.rng.integers(1, 4)))
        self._user(lesson, (clip, str(self.rng.choice(language.CAPTION_PROMPTS))))
        self._reply(lesson, language.caption(self.scenes[scene]), "caption")
        return lesson

    # --- films of a few takes, and what is shown of them ------------------------------------------------------------

    def _film(self, num_takes: int, joined: float = 0.25) -> Film:
        """A few takes in random order, most of them like the first; some follow without a gap."""
        takes = self.rng.permutation(self._takes_alike(num_takes)).tolist()
        return self._timed(takes, gap=lambda: 0.0 if self.rng.random() < joined else float(self.rng.uniform(16, 900)))

    def _timed(self, takes: Sequence[int], gap: Callable[[], float]) -> Film:
        """One after the other. A shot's place in the film is all that changes."""
        seconds, timed = 0.0, []
        for number in takes:
            take = self.takes[number]
            seconds += round(gap() * FRAMES_PER_SECOND) / FRAMES_PER_SECOND
            shots = tuple(
                dataclasses.replace(
                    shot, start_seconds=shot.start_seconds + seconds, end_seconds=shot.end_seconds + seconds
                )
                for shot in take.shots
            )
            timed.append(_Numbered(shots, take.event, self._first_scene[number]))
            seconds = timed[-1].end_seconds
        return Film(0, tuple(timed))

    @staticmethod
    def _first_seconds(take: Take, seconds: float) -> Take:
        first = take.shots[0]
        shot = dataclasses.replace(first, end_seconds=min(first.end_seconds, first.start_seconds + seconds))
        return dataclasses.replace(take, shots=(shot,), event=None)

    def _frames(self, film: Film, *, single: bool) -> list[Part]:
        """Pieces of every take with their times: single frames, pairs, or clips; each shot has one at least."""
        parts: list[Part] = []
        many = len(film.takes) > 5
        length = 1 if single or many else int(self.rng.choice([1, 2, 4, 8], p=[0.45, 0.2, 0.15, 0.2]))
        for take in film.takes:
            for number, shot in enumerate(take.shots):
                scene = _scene_id(take, number)
                most = max(1, int((shot.end_seconds - shot.start_seconds) // (2 * length)))
                num_pieces = 1 if many or length >= 4 else min(most, int(self.rng.choice([1, 2, 3])))
                step = (shot.end_seconds - shot.start_seconds) / num_pieces
                for piece in range(num_pieces):
                    seconds = shot.start_seconds + step * (piece + float(self.rng.uniform(0.05, 0.6)))
                    left = max(1, int((shot.end_seconds - seconds) // 2))
                    pairs = (alone(scene),) if single else (scene,) * min(length, left)
                    parts += [prompts.timestamp(seconds), Block(pairs)]
        return parts

    def _clip(self, film: Film, take: Take, num_pairs: int) -> Block:
        """Neighbouring pairs that begin in the take, and may run on into what follows it."""
        shots = [
            (shot.start_seconds, _scene_id(other, number))
            for other in film.takes
            if take.start_seconds <= other.start_seconds <= take.start_seconds + 40
            for number, shot in enumerate(other.shots)
        ]
        first = float(self.rng.uniform(take.start_seconds, max(take.start_seconds + 0.1, take.end_seconds - num_pairs)))
        pairs = [max(s for s in shots if s[0] <= first + 2 * pair)[1] for pair in range(num_pairs)]
        return Block(tuple(pairs))

    def _takes_alike(self, num_takes: int) -> list[int]:
        """A random take, and others; most of them share attributes with a thing in it."""
        row = int(self.rng.integers(len(self._words)))
        takes = [int(self._take_of_subject[row])]
        columns = self.rng.permutation(len(ATTRIBUTES))[:3]
        while len(takes) < num_takes:
            tried = self.rng.integers(len(self._words), size=int(self.rng.choice([1, 4, 24, 48])))
            shared = (self._words[tried][:, columns] == self._words[row, columns]).sum(1)
            take = int(self._take_of_subject[tried[int(shared.argmax())]])
            if take not in takes:
                takes.append(take)
        return takes

    def _random_takes(self, num: int) -> list[int]:
        return [int(number) for number in self.rng.integers(len(self.takes), size=num)]

    def _scene_of(self, take: int) -> SceneId:
        return int(self.rng.integers(self._first_scene[take], self._first_scene[take + 1]))

    def _scene_id(self) -> SceneId:
        return int(self.rng.integers(len(self.scenes)))

    def _attributes(self, num: int) -> list[str]:
        return [str(attribute) for attribute in self.rng.permutation(list(ATTRIBUTES))[:num]]

    def _one_of(self, subjects: Sequence[Subject]) -> Subject:
        return subjects[int(self.rng.integers(len(subjects)))]

    @staticmethod
    def _said(subject: Subject, attributes: Sequence[str]) -> dict[str, str]:
        return {attribute: subject.value(attribute) for attribute in attributes}

    def _word_prompt(self, of: str) -> str:
        if self.rng.random() < 0.1:
            return prompts.embedding_e5v(of)
        switches = (self.rng.random(3) < 0.8).tolist()
        return prompts.embedding(of, task=switches[0], semantics=switches[1], noise=switches[2])

    # --- tokens -----------------------------------------------------------------------------------------------------

    def _open(self) -> Lesson:
        lesson = Lesson()
        self._text(lesson, "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
        return lesson

    def _user(self, lesson: Lesson, parts: Sequence[Part]) -> None:
        self._text(lesson, "<|im_start|>user\n")
        for part in parts:
            if isinstance(part, str):
                self._text(lesson, part)
            else:
                self._block(lesson, part)
        self._text(lesson, "<|im_end|>\n<|im_start|>assistant\n")

    def _reply(self, lesson: Lesson, text: str, task: str) -> None:
        """Each token of the text is judged, the first one by the task's own name."""
        for place, token in enumerate(self._encode(text)):
            self._target_here(lesson, [token], f"{task}: rest" if place else task)
        self._end_reply(lesson)

    def _word_reply(self, lesson: Lesson, words: set[str], task: str) -> None:
        tokens = sorted({self._encode(word)[-1] for word in words})
        self._target_here(lesson, tokens, task)
        self._end_reply(lesson)

    def _end_reply(self, lesson: Lesson) -> None:
        self._target_here(lesson, [self._end], "end")
        self._text(lesson, "\n")

    def _words_here(self, lesson: Lesson, words: Sequence[str]) -> None:
        self._text(lesson, "\n")  # without it nothing tells where an item begins
        for word in words:
            self._append(lesson, self._encode(word)[-1:])

    def _verdict_here(self, lesson: Lesson, verdict: str, task: str) -> None:
        self._target_here(lesson, self._encode(verdict)[-1:], task)

    def _target_here(self, lesson: Lesson, tokens: Sequence[int], task: str) -> None:
        lesson.targets.append(Target(len(lesson.ids) - 1, tuple(tokens), task))
        self._append(lesson, [tokens[0] if len(tokens) == 1 else int(self.rng.choice(tokens))])

    def _text(self, lesson: Lesson, text: str) -> None:
        self._append(lesson, self._encode(text))

    def _append(self, lesson: Lesson, ids: Sequence[int]) -> None:
        start = max(lesson.positions[-1]) + 1 if lesson.positions else 0
        lesson.ids += ids
        lesson.positions += [(start + i,) * 3 for i in range(len(ids))]

    def _block(self, lesson: Lesson, block: Block) -> None:
        self._append(lesson, [self._block_start])
        start = lesson.positions[-1][0] + 1
        for number, scene in enumerate(block.pairs):
            lesson.pairs.append(scene)
            lesson.ids += [self._video] * (ROWS * COLUMNS)
            lesson.positions += [
                (start + TEMPORAL_STEP * number, start + row, start + column)
                for row in range(ROWS)
                for column in range(COLUMNS)
            ]
        last = max(TEMPORAL_STEP * (len(block.pairs) - 1) + 1, ROWS, COLUMNS)
        lesson.ids.append(self._block_end)
        lesson.positions.append((start + last,) * 3)


@dataclass(frozen=True, slots=True)
class _Numbered(Take):
    """A take whose scenes have numbers, one after the other."""

    first_scene: SceneId = 0


def _scene_id(take: Take, shot: int) -> SceneId:
    assert isinstance(take, _Numbered)
    return take.first_scene + shot
