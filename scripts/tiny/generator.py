"""Sample generation: for each task, conversations about random takes and what is true of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from lvqa import prompts
from lvqa.records import Question
from lvqa.synthetic import language
from lvqa.synthetic.questions import ATTRIBUTE_ABILITIES, QuestionDraft, QuestionWriter, matching_subjects
from lvqa.synthetic.script import Take, VideoScript
from lvqa.synthetic.world import ATTRIBUTES, Subject
from tiny.samples import PairRun, PromptPart, Sample, SampleBuilder, SampleTokenizer
from tiny.takes import TakePool, shorten_take

SENTENCE_SHARE = 0.2
"""The share of the answers that are sentences."""


class SampleGenerator:
    """Generates samples about the given takes.

    Args:
        tokenizer: The tokenizer of the model.
        takes: What the samples are about.
        seed: The random seed. The same seed gives the same samples in the same order of calls.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, takes: Sequence[Take], *, seed: int) -> None:
        self.pool = TakePool(takes)
        self.tokenizer = SampleTokenizer(tokenizer)
        self.rng = np.random.default_rng(seed)
        self.tasks: dict[str, Callable[[], Sample]] = {
            "match drill": self.match_drill,
            "scene drill": self.scene_drill,
            "answer": self.answer,
            "temporal": self.temporal,
            "most": self.most,
            "rerank": self.rerank,
            "clip word": self.clip_word,
            "query word": self.query_word,
            "caption": self.caption,
        }

    # --- drills: a dozen verdicts in one sequence -------------------------------------------------------------------

    def match_drill(self, num_items: int = 12) -> Sample:
        """Generate a clip, and descriptions of one to four attributes, each with its verdict: A or B for yes or no."""
        builder = self._builder()
        scene = self.pool.sample_scene(self.rng)
        subjects = self.pool.scenes[scene].subjects
        builder.user((PairRun((scene,)),))
        for _ in range(num_items):
            attributes = self._attributes(int(self.rng.integers(1, 5)))
            description = self._describe_one(subjects, attributes)
            if self.rng.random() < 0.5:
                changed = str(self.rng.choice(attributes))
                others = [value for value in ATTRIBUTES[changed] if value != description[changed]]
                description[changed] = str(self.rng.choice(others))
            if len(subjects) > 1 and self.rng.random() < 0.3:  # attributes of two things
                mixed = str(self.rng.choice(attributes))
                description[mixed] = self._one_of(subjects).value(mixed)
            matches = any(subject.matches(description) for subject in subjects)
            if self.rng.random() < 0.5:
                builder.text("\n" + language.describe(description))
            else:
                builder.words(list(description.values()))
            builder.verdict("A" if matches else "B", f"match drill {len(attributes)}")
        return builder.sample

    def scene_drill(self, num_items: int = 12, num_scenes: Sequence[int] = (1, 2, 3, 3, 4, 4, 5)) -> Sample:
        """Generate clips with their times, and a dozen times: an attribute, one to four words of a thing, the value."""
        builder = self._builder()
        takes = self.pool.sample_similar_takes(self.rng, int(self.rng.choice(num_scenes)))
        scenes = [self.pool.sample_scene_of(self.rng, take) for take in self.rng.permutation(takes).tolist()]
        parts: list[PromptPart] = []
        seconds = 0.0
        for scene in scenes:
            seconds += float(self.rng.uniform(2, 900))
            parts += [prompts.timestamp(seconds), PairRun((scene,))]
        builder.user(parts)
        subjects = [subject for scene in scenes for subject in self.pool.scenes[scene].subjects]
        for _ in range(num_items):
            attribute, description, value = self._sample_lookup(subjects)
            if attribute in ATTRIBUTE_ABILITIES and self.rng.random() < 0.5:
                index = int(self.rng.integers(language.num_wordings(attribute, held_out=False)))
                builder.text("\n" + language.wording(attribute, index, thing=language.describe(description)))
            else:
                builder.words([attribute, *description.values()])
            builder.verdict(value, f"scene drill {min(4, len(scenes))}")
        return builder.sample

    def _sample_lookup(self, subjects: Sequence[Subject]) -> tuple[str, dict[str, str], str]:
        """Sample an attribute, a description and the one value that the attribute has for what matches."""
        while True:
            attribute, *identifying = self._attributes(2 + int(self.rng.integers(4)))
            # The sign is the hardest to read from the right one of many scenes.
            if "sign" in identifying and self.rng.random() < 0.4:
                identifying[identifying.index("sign")], attribute = attribute, "sign"
            description = self._describe_one(subjects, identifying)
            values = {subject.value(attribute) for subject in subjects if subject.matches(description)}
            if len(values) == 1:
                return attribute, description, values.pop()

    # --- the product's prompts --------------------------------------------------------------------------------------

    def answer(self, num_takes: Sequence[int] = (1, 2, 3, 4, 4, 5), num_turns: int = 5) -> Sample:
        """Generate questions about one moment, on frames of a few takes that are similar to each other."""
        kinds = {"attribute": 0.72, "beside": 0.1, "event": 0.18}
        return self._questions(self._script(int(self.rng.choice(num_takes))), kinds, num_turns)

    def temporal(self, num_takes: Sequence[int] = (2, 3, 4, 5), num_turns: int = 4) -> Sample:
        """Generate questions about times and about what follows, on frames of a few takes."""
        kinds = {"attribute": 0.1, "at": 0.3, "when": 0.2, "after": 0.4}
        return self._questions(self._script(int(self.rng.choice(num_takes)), joined=0.6), kinds, num_turns)

    def _questions(self, script: VideoScript, kinds: Mapping[str, float], num_turns: int) -> Sample:
        """Generate a conversation; it is about another video if none of the questions can be asked about this one."""
        builder = self._builder()
        drafts = self._drafts(script, kinds, num_turns)
        if not drafts:
            return self._questions(self._script(len(script.takes), joined=1.0), kinds, num_turns)
        needs_motion = any(draft.kind == "motion" or "motion" in draft.description for draft in drafts)
        frames = self.pool.frames(self.rng, script, single=not needs_motion and self.rng.random() < 0.3)
        suffix = ", three takes or more" if len(script.takes) > 2 else ""
        for turn, draft in enumerate(drafts):
            task = draft.kind if draft.kind not in ATTRIBUTE_ABILITIES else "at" if len(draft.tags) > 1 else "answer"
            prompt, reply = self._prompt_and_reply(draft)
            builder.user((*frames, prompt) if turn == 0 else (prompt,))
            builder.reply(reply, f"{task}{suffix}")
        return builder.sample

    def _drafts(self, script: VideoScript, kinds: Mapping[str, float], num_drafts: int) -> list[QuestionDraft]:
        """Sample questions, as many as are found in a number of tries."""
        writer = QuestionWriter(script, self.rng)
        drafts: list[QuestionDraft] = []
        for _ in range(8 * num_drafts):
            draft = writer.draft_kind(str(self.rng.choice(list(kinds), p=list(kinds.values()))))
            if draft is not None:
                drafts.append(draft)
            if len(drafts) == num_drafts:
                break
        return drafts

    def most(self, num_takes: Sequence[int] = (6, 10, 16, 24)) -> Sample:
        """Generate a question about what is seen most, on single frames or pairs of many takes."""
        builder = self._builder()
        attribute = str(self.rng.choice(["place", "shape", "colour"]))
        value = int(self.rng.integers(len(ATTRIBUTES[attribute])))
        num = int(self.rng.choice(num_takes))
        num_with = max(2, round(num * float(self.rng.uniform(0.3, 0.6))))
        takes = [
            *self.pool.sample_takes_with(self.rng, attribute, value, num_with),
            *self.pool.sample_takes(self.rng, num - num_with),
        ]
        shuffled = self.rng.permutation(takes).tolist()
        script = self.pool.script(shuffled, gap=lambda: float(self.rng.uniform(20, 300)))
        script = dataclasses.replace(script, takes=tuple(shorten_take(take, 4.0) for take in script.takes))
        draft = None
        while draft is None:
            draft = QuestionWriter(script, self.rng).draft_kind("most")
            if draft is None and not self.rng.integers(4):
                return self.most(num_takes)
        prompt, reply = self._prompt_and_reply(draft)
        builder.user((*self.pool.frames(self.rng, script, single=bool(self.rng.integers(2))), prompt))
        builder.reply(reply, "most")
        return builder.sample

    def _prompt_and_reply(self, draft: QuestionDraft) -> tuple[str, str]:
        """Return the product's prompt for the question, and the correct reply: a word or a sentence."""
        question = Question(draft.text)
        if self.rng.random() >= SENTENCE_SHARE:
            return prompts.short_answer(question), draft.correct
        kind = next((a for a in ATTRIBUTES if draft.correct in ATTRIBUTES[a]), draft.kind)
        return prompts.answer(question), language.sentence(kind, draft.correct)

    def rerank(self) -> Sample:
        """Generate the product's reranking prompt: a question, and a clip that matches it, or nearly, or not."""
        builder = self._builder()
        draft = None
        while draft is None or not draft.description:
            script = self._script(4, joined=0.6)
            kind = self.rng.choice(["attribute", "beside", "event", "when", "after"], p=[0.6, 0.1, 0.1, 0.1, 0.1])
            draft = QuestionWriter(script, self.rng).draft_kind(str(kind))
        description = draft.description
        shuffled = self.rng.permutation(np.array(script.takes, dtype=object))
        take_by_match = {bool(matching_subjects(take, description)): take for take in shuffled}
        wants_match = bool(self.rng.integers(2)) and True in take_by_match
        take = take_by_match.get(wants_match, script.takes[0])
        clip = self.pool.clip(self.rng, script, take, int(self.rng.choice([1, 4, 8, 8])))
        matches = any(subject.matches(description) for subject in self._subjects(clip))
        before, after = prompts.rerank(draft.text, clip_first=True)
        builder.user((before, clip, after))
        builder.reply(prompts.YES_OPTION if matches else prompts.NO_OPTION, "rerank")
        return builder.sample

    def clip_word(self) -> Sample:
        """Generate the product's embedding prompt for a clip; every word that is true of the clip is correct."""
        builder = self._builder()
        script = self._script(1)
        clip = self.pool.clip(self.rng, script, script.takes[0], int(self.rng.integers(1, 9)))
        words = {subject.value(attribute) for subject in self._subjects(clip) for attribute in ATTRIBUTES}
        builder.user((clip, self._word_prompt(prompts.CLIP)))
        builder.word_reply(words, "clip word")
        return builder.sample

    def query_word(self) -> Sample:
        """Generate the product's embedding prompt for a question; every value in its description is correct."""
        builder = self._builder()
        draft = None
        while draft is None or not draft.description:
            writer = QuestionWriter(self._script(4, joined=0.5), self.rng)
            draft = writer.draft_kind(str(self.rng.choice(["attribute", "beside", "event", "when", "after"])))
        builder.user((f"{draft.text}\n{self._word_prompt(prompts.QUERY)}",))
        builder.word_reply(set(draft.description.values()), "query word")
        return builder.sample

    def caption(self) -> Sample:
        """Generate a clip of one scene, and the scene in one sentence."""
        builder = self._builder()
        scene = self.pool.sample_scene(self.rng)
        clip = PairRun((scene,) * int(self.rng.integers(1, 4)))
        builder.user((clip, str(self.rng.choice(language.CAPTION_PROMPTS))))
        builder.reply(language.caption(self.pool.scenes[scene]), "caption")
        return builder.sample

    # --- what all tasks need ------------------------------------------------------------------------------------------

    def _builder(self) -> SampleBuilder:
        return SampleBuilder(self.tokenizer, self.rng)

    def _script(self, num_takes: int, joined: float = 0.25) -> VideoScript:
        return self.pool.sample_script(self.rng, num_takes, joined)

    def _subjects(self, clip: PairRun) -> list[Subject]:
        """Return all things of all pairs; none of the pairs is a single frame."""
        return [subject for scene in clip.pairs for subject in self.pool.scenes[scene].subjects]

    def _attributes(self, num: int) -> list[str]:
        """Sample different attributes."""
        return [str(attribute) for attribute in self.rng.permutation(list(ATTRIBUTES))[:num]]

    def _one_of(self, subjects: Sequence[Subject]) -> Subject:
        return subjects[int(self.rng.integers(len(subjects)))]

    def _describe_one(self, subjects: Sequence[Subject], attributes: Sequence[str]) -> dict[str, str]:
        """Sample a thing, and describe it by these attributes."""
        subject = self._one_of(subjects)
        return {attribute: subject.value(attribute) for attribute in attributes}

    def _word_prompt(self, content: str) -> str:
        """Sample one of the product's embedding prompts, for a clip or for a query."""
        if self.rng.random() < 0.1:
            return prompts.embedding_e5v(content)
        switches = (self.rng.random(3) < 0.8).tolist()
        return prompts.embedding(content, task=switches[0], semantics=switches[1], noise=switches[2])
