"""The lessons: conversations about scenes, as token sequences with the places where the model is to be right.

Every sequence has the form the product uses: the chat template, the prompts of `prompts.py`, and visual blocks of frame
pairs. A lesson holds scenes, not pixels: training turns them into visual tokens, either ideal ones made of word vectors
(before the vision tower can see) or the tower's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from lvqa import prompts
from lvqa.records import LETTERS, Question
from lvqa.tiny import language
from lvqa.tiny.build import token_id
from lvqa.tiny.world import ATTRIBUTES, Scene
from lvqa.visual import pairs_of_frames, runs_of_pairs

ROWS, COLUMNS = 3, 4
"""Merged visual tokens of a pair: frames of 84 x 112."""

TEMPORAL_STEP = 4
"""Positions between neighbouring pairs: two seconds at two positions a second, as Qwen2.5-VL counts."""

FREE_SHARE = 0.7
"""Of the questions about chosen frames, those without options: the product reads this model's answers so."""

SceneId = int
"""Index into the scenes that a `Teacher` was given."""


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
    temporal: tuple[int, ...] = ()
    """Temporal position of each pair from the block's start; evenly spaced if left out."""


Part = str | Block


def alone(scene: SceneId) -> SceneId:
    """Names a pair that is one frame of the scene shown twice; `alone` of that is the scene again."""
    return ~scene


Reply = list[tuple[tuple[str, ...], str]]
"""What is said, word by word: the words that would be right, and the task they are counted under."""


class Teacher:
    """Writes lessons about the given scenes."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, scenes: Sequence[Scene], *, seed: int) -> None:
        self.scenes = scenes
        self.rng = np.random.default_rng(seed)
        self._video = token_id(tokenizer, "<|video_pad|>")
        self._block_start = token_id(tokenizer, "<|vision_start|>")
        self._block_end = token_id(tokenizer, "<|vision_end|>")
        self._end = token_id(tokenizer, "<|im_end|>")
        self._encode: Callable[[str], list[int]] = lru_cache(100_000)(
            lambda text: tokenizer(text, add_special_tokens=False).input_ids
        )
        self.tasks: dict[str, Callable[[float], Lesson]] = {
            "letter drill": self.letter_drill,
            "match drill": self.match_drill,
            "scene drill": self.scene_drill,
            "choice drill": self.choice_drill,
            "lookup": self.lookup,
            "compare": self.compare,
            "talk": self.talk,
            "answer": self.answer,
            "rerank": self.rerank,
            "clip word": self.clip_word,
            "query word": self.query_word,
            "caption": self.caption,
        }

    # --- tasks: `worked` is the share of replies that name the value before the verdict --------------------------

    def letter_drill(self, _worked: float, num_items: int = 14) -> Lesson:
        """Text alone: a list of options, then many values, each followed by its letter."""
        lesson = self._open()
        values = self.rng.permutation([value for values in ATTRIBUTES.values() for value in values])[:4].tolist()
        self._user(lesson, (prompts.options(values),))
        for place in self.rng.integers(4, size=num_items).tolist():
            self._drill(lesson, [values[place]], LETTERS[place], "letter drill")
        return lesson

    def match_drill(self, _worked: float, num_items: int = 12) -> Lesson:
        """A clip, then descriptions of one to three words, each followed by A if all of it holds and B if not."""
        lesson = self._open()
        scene = self._scene_id()
        self._user(lesson, (self._clip(scene, 1),))
        for _ in range(num_items):
            attributes = self.rng.choice(list(ATTRIBUTES), int(self.rng.choice([1, 2, 3])), replace=False).tolist()
            wanted = self.scenes[scene]
            fits = self.rng.random() < 0.5
            if not fits:
                wrong = str(self.rng.choice(attributes))
                changed: dict[str, Any] = {wrong: self._another(wrong, wanted.value(wrong))}
                wanted = replace(wanted, **changed)
            words: Sequence[str] | str = [wanted.value(attribute) for attribute in attributes]
            if self.rng.random() < 0.5:
                asked = str(self.rng.choice([attribute for attribute in ATTRIBUTES if attribute not in attributes]))
                words = self._question(wanted, asked, attributes)
            self._drill(lesson, words, "A" if fits else "B", f"match drill {len(attributes)}")
        return lesson

    def scene_drill(
        self, _worked: float, num_items: int = 12, num_scenes: Sequence[int] = (1, 2, 2, 2, 3, 4, 6)
    ) -> Lesson:
        """Clips with their times, then often: an attribute's name, one to three words of a scene, and its value."""
        lesson, scenes = self._show_scenes(num_scenes)
        for _ in range(num_items):
            words, value, _ = self._ask_briefly(scenes)
            self._drill(lesson, words, value, f"scene drill {min(4, len(scenes))}")
        return lesson

    def choice_drill(self, worked: float, num_items: int = 10, num_scenes: Sequence[int] = (1, 2, 3, 4, 4)) -> Lesson:
        """As `scene_drill`, but with four options and the letter, or the value and then the letter.

        Wrong options are mostly seen in the other scenes: else it is enough to know what was seen at all.
        """
        lesson, scenes = self._show_scenes(num_scenes)
        for _ in range(num_items):
            words, value, asked = self._ask_briefly(scenes)
            seen = {self.scenes[scene].value(asked) for scene in scenes} if self.rng.random() < 0.7 else ()
            options, place = language.draw_options(self.rng, value, asked, preferably=seen)
            self._drill_item(lesson, words)
            self._text(lesson, "\n" + prompts.options(options) + "\n")
            task = self._named(f"choice drill {min(4, len(scenes))}", words)
            if self.rng.random() < worked:
                self._verdict_here(lesson, value, f"{task}: value")
                task += " after value"
            self._verdict_here(lesson, LETTERS[place], task)
        return lesson

    def _show_scenes(self, num_scenes: Sequence[int]) -> tuple[Lesson, list[SceneId]]:
        lesson = self._open()
        scenes = [self._scene_id()]
        alike = self.rng.permutation(list(ATTRIBUTES))[:3].tolist()
        for _ in range(int(self.rng.choice(num_scenes)) - 1):
            scenes.append(self._near(scenes[0], alike) if self.rng.random() < 0.4 else self._scene_id())
        parts: list[Part] = []
        seconds = 0.0
        for scene in self.rng.permutation(scenes).tolist():
            seconds += float(self.rng.uniform(2, 900))
            parts += [prompts.timestamp(seconds), self._clip(scene, 1)]
        self._user(lesson, parts)
        return lesson, scenes

    def _ask_briefly(self, scenes: Sequence[SceneId]) -> tuple[Sequence[str] | str, str, str]:
        """An attribute's name and one to three words that fit one of the scenes, or the same as a question in full; the
        value; the attribute."""
        while True:
            scene = scenes[int(self.rng.integers(len(scenes)))]
            asked, *given = self.rng.permutation(list(ATTRIBUTES))[: 2 + int(self.rng.integers(3))].tolist()
            if "number" in given and self.rng.random() < 0.6:  # the hardest to read from the right one of many scenes
                given[given.index("number")], asked = asked, "number"
            values = {self.scenes[i].value(asked) for i in scenes if self._fits(i, scene, given)}
            if len(values) == 1:
                value = values.pop()
                if self.rng.random() < 0.5:
                    return self._question(self.scenes[scene], asked, given), value, asked
                return [asked, *(self.scenes[scene].value(a) for a in given)], value, asked

    def _question(self, scene: Scene, asked: str, given: Sequence[str]) -> str:
        return language.question(scene, asked, given, int(self.rng.integers(len(language.WORDINGS[asked]))))

    def _another(self, attribute: str, value: str) -> str:
        return str(self.rng.choice([other for other in ATTRIBUTES[attribute] if other != value]))

    def _drill(self, lesson: Lesson, words: Sequence[str] | str, verdict: str, task: str) -> None:
        self._drill_item(lesson, words)
        self._verdict_here(lesson, verdict, self._named(task, words))

    def _drill_item(self, lesson: Lesson, words: Sequence[str] | str) -> None:
        self._text(lesson, "\n")  # without it nothing tells where an item begins
        if isinstance(words, str):
            self._text(lesson, words)
        else:
            for word in words:
                self._append(lesson, self._encode(word)[-1:])

    @staticmethod
    def _named(task: str, words: Sequence[str] | str) -> str:
        return f"{task} in full" if isinstance(words, str) else task

    def _verdict_here(self, lesson: Lesson, verdict: str, task: str) -> None:
        token = self._encode(verdict)[-1]
        lesson.targets.append(Target(len(lesson.ids) - 1, (token,), task))
        self._append(lesson, [token])

    def lookup(self, _worked: float, num_turns: int = 6) -> Lesson:
        """Text alone: a list of options, then the letter of a value or the value of a letter, several times."""
        lesson = self._open()
        values = self.rng.permutation([value for values in ATTRIBUTES.values() for value in values])[:4].tolist()
        for turn in range(num_turns):
            place = int(self.rng.integers(4))
            value, letter = values[place], LETTERS[place]
            shown = prompts.options(values) + "\n" if turn == 0 else ""
            if self.rng.random() < 0.7:
                self._user(lesson, (f"{shown}{value}",))
                self._reply(lesson, [((letter,), "lookup letter")])
            else:
                self._user(lesson, (f"{shown}{letter}",))
                self._reply(lesson, [((value,), "lookup value")])
        return lesson

    def compare(self, worked: float, num_turns: int = 4) -> Lesson:
        """Text alone: does a list of words hold another? Answered A (yes) or B (no)."""
        lesson = self._open()
        for _ in range(num_turns):
            scene = self._scene_id()
            words = self.rng.permutation(self.scenes[scene].words).tolist()
            attributes = self.rng.choice(list(ATTRIBUTES), int(self.rng.choice([1, 1, 2, 3])), replace=False).tolist()
            fits = self.rng.random() < 0.5
            other = scene if fits else self._near(scene, attributes)
            while not fits and self._fits(other, scene, attributes):
                other = self._near(scene, attributes)
            asked = [self.scenes[other].value(attribute) for attribute in attributes]
            self._user(lesson, (f"Query: {' '.join(asked)}\nCandidate: {' '.join(words)}\nA. Yes\nB. No",))
            telling = [a for a in attributes if self.scenes[scene].value(a) != self.scenes[other].value(a)]
            value = self.scenes[scene].value(str(self.rng.choice(telling or attributes)))
            self._reply(lesson, self._verdict(value, "A" if fits else "B", "compare", worked))
        return lesson

    def talk(self, worked: float, num_turns: int = 5) -> Lesson:
        """Short turns about one clip: values, multiple choice and matching. The same prompt for both kinds of reply."""
        lesson = self._open()
        scene = self._scene_id()
        block: tuple[Part, ...] = (self._clip(scene, 1 + int(self.rng.integers(2))),)
        for turn in range(num_turns):
            kind = self.rng.choice(["value", "choice", "match"])
            parts, reply = getattr(self, f"_{kind}_turn")(self.scenes[scene], worked)
            self._user(lesson, (*block, *parts) if turn == 0 else parts)
            self._reply(lesson, reply)
        return lesson

    def answer(self, worked: float, num_clips: Sequence[int] = (1, 2, 3, 4, 4, 4, 4), num_turns: int = 5) -> Lesson:
        """The product's answer prompt over frames of some clips, or of one whole scene; then more questions."""
        lesson = self._open()
        scene = self._scene_id()
        text, asked, given = language.draw_question(self.rng, self.scenes[scene], 3)
        if self.rng.random() < 0.3:
            parts = self._whole_scene(scene)
        else:
            parts = self._best_clips(scene, given, int(self.rng.choice(num_clips)))
        shown = {max(pair, alone(pair)) for part in parts if isinstance(part, Block) for pair in part.pairs}
        for turn in range(num_turns):
            right = self.scenes[scene].value(asked)
            prompt, reply = self._question_turn(text, asked, right, worked, many=len(shown) > 2)
            self._user(lesson, (*parts, prompt) if turn == 0 else (prompt,))
            self._reply(lesson, reply)
            scene, text, asked, given = self._next_question(sorted(shown))
        return lesson

    def _question_turn(self, text: str, asked: str, right: str, worked: float, *, many: bool) -> tuple[str, Reply]:
        if self.rng.random() < FREE_SHARE:
            task = "free answer, three scenes or more" if many else "free answer"
            return prompts.answer(Question(text)), [((right,), task)]
        options, place = language.draw_options(self.rng, right, asked)
        task = "answer, three scenes or more" if many else "answer"
        return prompts.answer(Question(text, options)), self._verdict(right, LETTERS[place], task, worked)

    def _next_question(self, shown: Sequence[SceneId]) -> tuple[SceneId, str, str, tuple[str, ...]]:
        """About one of the scenes shown, with one answer among them; the hardest of some: another scene comes near."""
        drawn: list[tuple[int, tuple[SceneId, str, str, tuple[str, ...]]]] = []
        num_drawn = int(self.rng.choice([1, 4, 8]))
        while len(drawn) < num_drawn:
            scene = int(self.rng.choice(shown))
            text, asked, given = language.draw_question(self.rng, self.scenes[scene], 3)
            others = [i for i in shown if not self._fits(i, scene, given)]
            if len({self.scenes[i].value(asked) for i in shown if i not in others}) == 1:
                nearest = max((self._num_shared(i, scene, given) for i in others), default=0)
                drawn.append((nearest, (scene, text, asked, given)))
        return max(drawn, key=lambda question: question[0])[1]

    def _best_clips(self, scene: SceneId, given: Sequence[str], num_clips: int) -> list[Part]:
        """Pairs of each clip: some clips of the scene, the others of scenes that share something with it."""
        shown = [scene]
        while len(shown) < num_clips:
            other = self._near(scene, given, tries=(24, 48)) if self.rng.random() < 0.8 else self._scene_id()
            if self.rng.random() < 0.15 or not self._fits(other, scene, given):
                shown.append(scene if self._fits(other, scene, given) else other)
        # As the product shows clips of 16 seconds at budgets of 4, 8 and 16 frames a clip.
        firsts = ((4, 12), (2, 6, 10, 14), (0,))[int(self.rng.choice(3, p=[0.45, 0.15, 0.4]))]
        num_pairs = 8 if len(firsts) == 1 else 1
        parts: list[Part] = []
        seconds = 0.0
        for index in self.rng.permutation(num_clips):
            seconds += float(self.rng.uniform(16, 900))
            for first in firsts:
                parts += [prompts.timestamp(seconds + first), self._clip(shown[index], num_pairs)]
        return parts

    def _whole_scene(self, scene: SceneId) -> list[Part]:
        """Evenly spaced frames of one scene, in the runs of pairs that the product makes of them."""
        start, length = int(self.rng.integers(3600)), int(self.rng.integers(8, 40))
        num_frames = min(length, int(self.rng.choice([8, 16])))
        frames = [start + (2 * i + 1) * length // (2 * num_frames) for i in range(num_frames)]
        parts: list[Part] = []
        for run in runs_of_pairs(pairs_of_frames(frames)):
            pairs = tuple(scene if first != second else alone(scene) for first, second in run)
            temporal = tuple(TEMPORAL_STEP // 2 * (first - run[0][0]) for first, _ in run)
            parts += [prompts.timestamp(run[0][0]), Block(pairs, temporal)]
        return parts

    def rerank(self, worked: float) -> Lesson:
        """The product's reranking prompt: a query about a scene, and a clip that has it, nearly has it, or not."""
        lesson = self._open()
        scene = self._scene_id()
        query, _, given = language.draw_question(self.rng, self.scenes[scene], int(self.rng.choice([1, 2, 3, 3, 3])))
        fits = self.rng.random() < 0.5
        shown = scene if fits else self._near(scene, given)
        while not fits and self._fits(shown, scene, given):
            shown = self._near(scene, given)
        num_pairs = int(self.rng.choice([1, 2, 4, 8]))
        clip = self._cut_clip(shown, num_pairs, scene if not fits else None, given)
        before, after = prompts.rerank(query, clip_first=True)
        self._user(lesson, (before, clip, after))
        verdict = prompts.YES_OPTION if fits else prompts.NO_OPTION
        seen = self.scenes[shown]
        telling = [a for a in given if seen.value(a) != self.scenes[scene].value(a)] or list(given)
        value = seen.value(str(self.rng.choice(telling)))
        self._reply(lesson, self._verdict(value, verdict, "rerank", worked))
        return lesson

    def clip_word(self, _worked: float) -> Lesson:
        """One word for a clip: any of the words that hold for it."""
        lesson = self._open()
        scene = self._scene_id()
        clip = self._cut_clip(scene, int(self.rng.integers(1, 9)), None, ())
        words = tuple({word for pair in clip.pairs for word in self.scenes[pair].words})
        self._user(lesson, (clip, self._word_prompt(prompts.CLIP)))
        self._reply(lesson, [(words, "clip word")])
        return lesson

    def query_word(self, _worked: float) -> Lesson:
        """One word for a question or a caption: any of the words of the world that it holds."""
        lesson = self._open()
        scene = self.scenes[self._scene_id()]
        text, _, given = language.draw_question(self.rng, scene, int(self.rng.integers(1, 5)))
        if self.rng.random() < 0.2:
            text, given = language.caption(scene), tuple(ATTRIBUTES)
        self._user(lesson, (f"{text}\n{self._word_prompt(prompts.QUERY)}",))
        self._reply(lesson, [(tuple(scene.value(attribute) for attribute in given), "query word")])
        return lesson

    def caption(self, _worked: float) -> Lesson:
        """The whole clip in one sentence."""
        lesson = self._open()
        scene = self._scene_id()
        self._user(
            lesson, (self._clip(scene, 1 + int(self.rng.integers(2))), "Describe the video clip in one sentence.")
        )
        ids = self._encode(language.caption(self.scenes[scene]))
        self._append_reply(lesson, [((token,), "caption") for token in ids])
        return lesson

    # --- turns ------------------------------------------------------------------------------------------------------

    def _value_turn(self, scene: Scene, _worked: float) -> tuple[tuple[Part, ...], Reply]:
        text, asked, _ = language.draw_question(self.rng, scene, int(self.rng.integers(0, 3)))
        return (prompts.answer(Question(text)),), [((scene.value(asked),), f"talk {asked}")]

    def _choice_turn(self, scene: Scene, worked: float) -> tuple[tuple[Part, ...], Reply]:
        text, asked, _ = language.draw_question(self.rng, scene, int(self.rng.integers(0, 3)))
        right = scene.value(asked)
        options, place = language.draw_options(self.rng, right, asked)
        return (prompts.answer(Question(text, options)),), self._verdict(right, LETTERS[place], "choice", worked)

    def _match_turn(self, scene: Scene, worked: float) -> tuple[tuple[Part, ...], Reply]:
        attribute = str(self.rng.choice(list(ATTRIBUTES)))
        fits = self.rng.random() < 0.5
        other = scene
        while not fits and other.value(attribute) == scene.value(attribute):
            other = self.scenes[self._scene_id()]
        query = language.describe(other, [attribute])
        verdict = prompts.YES_OPTION if fits else prompts.NO_OPTION
        parts = (f"Query: {query}\nA. Yes\nB. No",)
        return parts, self._verdict(scene.value(attribute), verdict, "match", worked)

    def _verdict(self, value: str, letter: str, task: str, worked: float) -> Reply:
        if self.rng.random() < worked:
            return [((value,), f"{task}: value"), ((f" {letter}",), f"{task} after value")]
        return [((letter,), task)]

    # --- scenes -----------------------------------------------------------------------------------------------------

    def _scene_id(self) -> SceneId:
        return int(self.rng.integers(len(self.scenes)))

    def _fits(self, candidate: SceneId, scene: SceneId, given: Sequence[str]) -> bool:
        return all(self.scenes[candidate].value(a) == self.scenes[scene].value(a) for a in given)

    def _num_shared(self, candidate: SceneId, scene: SceneId, given: Sequence[str]) -> int:
        return sum(self.scenes[candidate].value(a) == self.scenes[scene].value(a) for a in given)

    def _near(self, scene: SceneId, given: Sequence[str], *, tries: Sequence[int] = (1, 4, 24)) -> SceneId:
        """The best of some random scenes by the number of given attributes it shares: often all but one."""
        tried = self.rng.integers(len(self.scenes), size=int(self.rng.choice(tries))).tolist()
        best: SceneId = max(tried, key=lambda i: self._num_shared(i, scene, given))
        return best

    def _clip(self, scene: SceneId, num_pairs: int) -> Block:
        return Block((scene,) * num_pairs)

    def _cut_clip(self, scene: SceneId, num_pairs: int, but_not: SceneId | None, given: Sequence[str]) -> Block:
        """A clip of one scene, or one with a cut to another that does not fit either."""
        if num_pairs < 3 or self.rng.random() < 0.5:
            return self._clip(scene, num_pairs)
        other = self._scene_id()
        while but_not is not None and self._fits(other, but_not, given):
            other = self._scene_id()
        cut = int(self.rng.integers(1, num_pairs - 1))
        parts = [(scene,) * (num_pairs - cut), (other,) * cut]
        if self.rng.random() < 0.5:
            parts.reverse()
        return Block(parts[0] + parts[1])

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

    def _reply(self, lesson: Lesson, reply: Reply) -> None:
        steps: list[tuple[tuple[int, ...], str]] = []
        for words, task in reply:
            # A digit after a space is two tokens; the last one tells the words apart.
            steps.append((tuple(self._encode(word)[-1] for word in words), task))
        self._append_reply(lesson, steps)

    def _append_reply(self, lesson: Lesson, steps: Sequence[tuple[tuple[int, ...], str]]) -> None:
        for tokens, task in [*steps, ((self._end,), "end")]:
            lesson.targets.append(Target(len(lesson.ids) - 1, tokens, task))
            self._append(lesson, [tokens[0] if len(tokens) == 1 else int(self.rng.choice(tokens))])
        self._text(lesson, "\n")

    def _text(self, lesson: Lesson, text: str) -> None:
        self._append(lesson, self._encode(text))

    def _append(self, lesson: Lesson, ids: Sequence[int]) -> None:
        start = max(lesson.positions[-1]) + 1 if lesson.positions else 0
        lesson.ids += ids
        lesson.positions += [(start + i,) * 3 for i in range(len(ids))]

    def _block(self, lesson: Lesson, block: Block) -> None:
        self._append(lesson, [self._block_start])
        start = lesson.positions[-1][0] + 1
        temporal = block.temporal or tuple(TEMPORAL_STEP * index for index in range(len(block.pairs)))
        for scene, offset in zip(block.pairs, temporal, strict=True):
            lesson.pairs.append(scene)
            lesson.ids += [self._video] * (ROWS * COLUMNS)
            lesson.positions += [
                (start + offset, start + row, start + column) for row in range(ROWS) for column in range(COLUMNS)
            ]
        last = max(temporal[-1] + 1, ROWS, COLUMNS)
        lesson.ids.append(self._block_end)
        lesson.positions.append((start + last,) * 3)
