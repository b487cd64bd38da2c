"""Training samples of the embedded model: they have exactly the product's form, and what they say is true."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_truth import (
    MOTION,
    PLACE,
    THING,
    WORDINGS,
    ThingInShot,
    description_of,
    last_word,
    option_in,
    parse_clock,
    parse_question,
    things_in,
    truth,
)
from tiny_tokenizer import tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lvqa import prompts
from lvqa.answering import Answerer, AnswerRequest
from lvqa.embedding import Embedder
from lvqa.models.chat import ChatTemplate
from lvqa.models.positions import VisualTokenSpan, position_ids
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.pairs import Pair, runs_of_pairs
from lvqa.records import Candidate, Clip, Counts, Question, Video
from lvqa.rerank import MultipleChoice
from lvqa.rerank.protocol import RerankRequest
from lvqa.synthetic.script import Shot, VideoScript
from lvqa.synthetic.world import ATTRIBUTES, HEIGHT, WIDTH
from lvqa.video import FrameGrid
from lvqa.visual_tokens import VisualTokens
from tiny.generator import SampleGenerator
from tiny.samples import COLUMNS, ROWS, PromptPart, Sample, single_frame
from tiny.takes import TakePool, random_takes

pytestmark = pytest.mark.slow


class Recorder:
    """Takes the model's place, and records the prompts."""

    name, revision, dim, max_pixels = "recorder", "0", 4, 1 << 20

    def __init__(self) -> None:
        self.counts = Counts()
        self.prompts: list[Prompt] = []

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        return 28 * ROWS, 28 * COLUMNS

    def token_grid(self, height: int, width: int) -> tuple[int, int]:
        return ROWS, COLUMNS

    def prompt_length(self, prompt: Prompt) -> tuple[int, int]:
        return 0, 0

    def last_hidden_states(self, prompts: Sequence[Prompt], **_: object) -> Tensor:
        self.prompts += prompts
        return torch.ones(len(prompts), self.dim)

    def next_token_logits(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Tensor:
        self.prompts += prompts
        return torch.zeros(len(prompts), len(words))

    def prefill_prefix(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        return list(prompts)  # what was read of a prefix is the prefix itself

    def reply_log_probs(self, prompt: Prompt, replies: Sequence[str], *, prefix: Prompt) -> Tensor:
        self.prompts.append((*prefix, *prompt))
        return torch.zeros(len(replies))

    def generate(self, prompts: Sequence[Prompt], *, prefixes: Sequence[Prompt], **_: object) -> list[str]:
        self.prompts += [(*prefix, *prompt) for prefix, prompt in zip(prefixes, prompts, strict=True)]
        return [""] * len(prompts)


class EmptyTokens(VisualTokens):
    """The product's store, whose tokens are zeros."""

    def stream(self, groups: Sequence[Sequence[Pair]]) -> Iterator[list[Tensor]]:
        for group in groups:
            yield [torch.zeros(ROWS * COLUMNS, 4) for _ in group]


class OneClip:
    """Reads one clip for a reranker."""

    prefix_cache = None

    def __init__(self, clip: ClipTokens) -> None:
        self.clip = clip

    def read(self, clips: Sequence[Clip]) -> Iterator[ClipTokens]:
        yield from (self.clip for _ in clips)


class RecordingPool(TakePool):
    """Keeps the script whose frames a sample has."""

    script_of_frames: VideoScript

    def frames(self, rng: np.random.Generator, script: VideoScript, *, single: bool) -> list[PromptPart]:
        self.script_of_frames = script
        return super().frames(rng, script, single=single)


class Bench:
    """A generator of samples about 300 takes, and the product's modules with a recorder in place of the model."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tiny: Qwen25VL) -> None:
        self.takes = random_takes(np.random.default_rng(3), 300)
        self.generator = SampleGenerator(tokenizer, self.takes, seed=4)
        self.generator.pool = self.pool = RecordingPool(self.takes)
        self.shots = [shot for take in self.takes for shot in take.shots]
        self.product = tiny
        self.chat = ChatTemplate(tokenizer, lay_out=tiny.lay_out, pad=tiny.pad, delimiters=tiny.delimiters)
        self.tokenizer = tokenizer
        self.recorder = Recorder()
        video = Video(Path("/video.mp4"), "video", 20_000.0, HEIGHT, WIDTH, 8.0)
        self.store = EmptyTokens(video, FrameGrid(np.arange(20_000.0)), self.recorder)

    def turns(self, sample: Sample) -> list[tuple[str, str]]:
        """Return the user's message and the reply of each turn."""
        opening = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        turn = r"<\|im_start\|>user\n(.*?)<\|im_end\|>\n<\|im_start\|>assistant\n(.*?)<\|im_end\|>\n"
        text = self.tokenizer.decode(sample.ids)
        assert re.fullmatch(f"{re.escape(opening)}(?:{turn})+", text, flags=re.DOTALL), text
        return re.findall(turn, text, flags=re.DOTALL)

    def first_message(self, sample: Sample) -> tuple[list[str], list[int]]:
        """Return the texts of the first message, and how many pairs are between them."""
        content = self.turns(sample)[0][0]
        runs = re.findall(r"<\|vision_start\|>((?:<\|video_pad\|>)+)<\|vision_end\|>", content)
        texts = re.split(r"<\|vision_start\|>.*?<\|vision_end\|>", content)
        return texts, [len(run) // (len("<|video_pad|>") * ROWS * COLUMNS) for run in runs]

    def clip(self, num_pairs: int) -> ClipTokens:
        """Return a clip as the pipeline makes it."""
        (clip,) = self.store.clips([[(2 * i, 2 * i + 1) for i in range(num_pairs)]])
        return clip

    def check(self, sample: Sample) -> None:
        """Check that the sample up to its first reply has the tokens and positions of the last recorded prompt."""
        prompt = self.chat.encode(self.recorder.prompts.pop())
        length = sample.targets[0].position + 1
        assert sample.ids[:length] == prompt.ids.tolist()
        assert [list(axis) for axis in zip(*sample.positions[:length], strict=True)] == prompt.positions.tolist()
        assert len(sample.pairs) * ROWS * COLUMNS == int(prompt.visual_mask.sum())

    def things(self, sample: Sample) -> list[ThingInShot]:
        """Return all things on the sample's frames."""
        return things_in([self.shot(pair) for pair in sample.pairs])

    def shot(self, pair: int) -> Shot:
        return self.shots[pair if pair >= 0 else single_frame(pair)]

    def word(self, token: int) -> str:
        return str(self.tokenizer.decode([token])).strip()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def bench(tokenizer, tiny) -> Bench:
    return Bench(tokenizer, tiny)


def test_samples_have_frames_of_the_products_size(tiny):
    assert tiny.frame_size(HEIGHT, WIDTH, max_pixels=tiny.max_pixels) == (28 * ROWS, 28 * COLUMNS)
    assert tiny.cell_pixels == 28


# --- the product's prompts --------------------------------------------------------------------------------------------


def grid_pairs(starts: Sequence[int], num_pairs: Sequence[int], pairs: Sequence[int]) -> list[Pair]:
    """Return the grid frames of a sample's runs: each run goes on from its time; a negative pair is one frame."""
    scenes, frames = iter(pairs), []
    for start, n in zip(starts, num_pairs, strict=True):
        first = start
        for _ in range(n):
            frames.append((first, first + (next(scenes) >= 0)))
            first = frames[-1][1] + 1
    return frames


@pytest.mark.parametrize(
    ("task", "kinds"),
    [
        ("answer", {"attribute", "beside", "event"}),
        ("temporal", {"attribute", "at", "when", "after"}),
        ("most", {"most"}),
    ],
)
def test_question_samples_are_the_products_prompts(bench, task, kinds):
    checked: Counter[tuple[str, str]] = Counter()
    while checked.total() < 60:
        sample = bench.generator.tasks[task]()
        texts, num_pairs = bench.first_message(sample)
        times = [re.fullmatch(r"\[(\d\d+:\d\d)\]", text) for text in texts[:-1]]
        assert all(times), texts
        starts = [int(parse_clock(match[1])) for match in times]
        frames = grid_pairs(starts, num_pairs, sample.pairs)
        if len(runs_of_pairs(frames, bench.store.grid)) != len(starts):
            continue  # the product would join some of these runs
        stem, instruction = texts[-1].split("\n")
        is_word = instruction == "Answer with a word or a short phrase."
        request = AnswerRequest(Question(stem, ("one", "two") if is_word else ()), frames)
        Answerer(time_encoding="text", mode="likelihood").answer_requests(bench.recorder, [request], bench.store)
        bench.check(sample)
        assert_frames_cover_all_shots(bench, sample, starts, num_pairs)
        for turn, (content, reply) in enumerate(bench.turns(sample)):
            stem, instruction = content.rsplit("<|vision_end|>", 1)[-1].split("\n")
            assert instruction in ("Answer with a word or a short phrase.", "Answer the question briefly.")
            parsed = parse_question(stem)
            assert parsed.wording < len(WORDINGS[parsed.wording_kind]) - 1
            option = reply if instruction.startswith("Answer with") else option_in(reply)
            assert {option} == truth(bench.pool.script_of_frames, parsed).answers, (stem, reply)
            checked[parsed.kind, "word" if option == reply else "sentence"] += turn == 0
    counted = [pair for pair, count in checked.items() if count]
    assert {kind for kind, _ in counted} == kinds
    assert {form for _, form in counted} == {"word", "sentence"}


def assert_frames_cover_all_shots(
    bench: Bench, sample: Sample, starts: Sequence[int], num_pairs: Sequence[int]
) -> None:
    """Each run starts at its time, which is given in whole seconds; every shot has a run."""
    shots = [shot for take in bench.pool.script_of_frames.takes for shot in take.shots]
    pairs, covered = iter(sample.pairs), []
    for start, n in zip(starts, num_pairs, strict=True):
        scenes = [bench.shot(next(pairs)).scene for _ in range(n)]
        near = [shot for shot in shots if shot.start_seconds - 1 < start < shot.end_seconds]
        (shot,) = (shot for shot in near if all(scene is shot.scene for scene in scenes))
        assert start + 2 * (n - 1) < shot.end_seconds
        covered += [] if covered[-1:] == [shot] else [shot]
    assert covered == shots


def test_rerank_samples_are_the_products_prompts(bench):
    verdicts: Counter[str] = Counter()
    kinds = set()
    candidate = Candidate(Clip("video", 0, 16), embed_score=0.0)
    for _ in range(80):
        sample = bench.generator.rerank()
        (_, after), (num_pairs,) = bench.first_message(sample)
        query = re.search(r"\nQuery: (.*)\nA\. Yes", after)
        assert query
        request = RerankRequest(query[1], [candidate], OneClip(bench.clip(num_pairs)))
        MultipleChoice(layout="clip_first").rerank(bench.recorder, [request])
        bench.check(sample)
        parsed = parse_question(query[1])
        expected = "A" if any(thing.matches(parsed.description) for thing in bench.things(sample)) else "B"
        assert bench.turns(sample)[0][1] == expected
        verdicts[expected] += 1
        kinds.add(parsed.kind)
    assert min(verdicts["A"], verdicts["B"]) > 20
    assert kinds == {"attribute", "beside", "event", "when", "after"}


INSTRUCTIONS = {
    Embedder(task=task, semantics=semantics, noise=noise): functools.partial(
        prompts.embedding, task=task, semantics=semantics, noise=noise
    )
    for task, semantics, noise in product([True, False], repeat=3)
} | {Embedder(prompt="e5v"): prompts.embedding_e5v}
"""Every embedder, and its instruction for CLIP or QUERY."""


def embedder_of(text: str, content: str) -> Embedder:
    """Return the embedder whose instruction the text ends with; of several the one with the longest."""
    texts = {embedder: instruction(content) for embedder, instruction in INSTRUCTIONS.items()}
    return max((e for e in texts if text.endswith(texts[e])), key=lambda e: len(texts[e]))


def test_clip_word_samples_are_the_products_prompts(bench):
    embedders = set()
    for _ in range(80):
        sample = bench.generator.clip_word()
        (before, text), (num_pairs,) = bench.first_message(sample)
        assert before == ""
        embedder = embedder_of(text, prompts.CLIP)
        embedder.clips(bench.recorder, [bench.clip(num_pairs)])
        bench.check(sample)
        words = {thing.value(attribute) for thing in bench.things(sample) for attribute in ATTRIBUTES}
        assert {bench.word(token) for token in sample.targets[0].tokens} == words
        embedders.add(embedder)
    assert Embedder() in embedders and Embedder(prompt="e5v") in embedders


def test_query_word_samples_are_the_products_prompts(bench):
    embedders = set()
    for _ in range(80):
        sample = bench.generator.query_word()
        (text,), _ = bench.first_message(sample)
        query, instruction = text.split("\n", 1)
        embedder = embedder_of(instruction, prompts.QUERY)
        embedder.queries(bench.recorder, [(query, ())])
        bench.check(sample)
        words = {bench.word(token) for token in sample.targets[0].tokens}
        assert words == set(parse_question(query).description.values())
        embedders.add(embedder)
    assert Embedder() in embedders and Embedder(prompt="e5v") in embedders


# --- captions and drills ----------------------------------------------------------------------------------------------


def test_captions_describe_the_whole_scene(bench):
    for _ in range(30):
        sample = bench.generator.caption()
        ((_, caption),) = bench.turns(sample)
        thing = rf"the (\w+) (\w+) (\w+) ({MOTION})"
        form = rf"{thing}(?: and {thing})*? ({PLACE}) with the (?:number|word) (\w+)\."
        match = re.fullmatch(form, caption[0].lower() + caption[1:])
        assert match, caption
        scene = bench.things(sample)[0].shot.scene
        assert (last_word(match[9]), match[10]) == (scene.place, scene.sign)
        things = [(*words, last_word(motion)) for *words, motion in re.findall(thing, caption, flags=re.IGNORECASE)]
        assert sorted(things) == sorted((t.size, t.colour, t.shape, t.motion) for t in scene.things)


def test_verdicts_of_drills_are_true(bench):
    """As far as their items are sentences."""
    num_phrases = num_questions = 0
    for _ in range(10):
        sample = bench.generator.match_drill()
        items = bench.tokenizer.decode(sample.ids).split("\n")
        for phrase, verdict in ((item[:-1], item[-1]) for item in items if re.fullmatch(f"{THING}[AB]", item)):
            description = description_of(re.fullmatch(THING, phrase))
            assert verdict == ("A" if any(one.matches(description) for one in bench.things(sample)) else "B")
            num_phrases += 1
        sample = bench.generator.scene_drill()
        for item in re.findall(r"\n(\w+ .+[?.]\w+)", bench.tokenizer.decode(sample.ids).split("assistant\n")[1]):
            text, value = re.fullmatch(r"(.*[?.])(\w+)", item).groups()
            parsed = parse_question(text)
            matching = [one for one in bench.things(sample) if one.matches(parsed.description)]
            assert {one.value(parsed.attribute) for one in matching} == {value}
            num_questions += 1
    assert min(num_phrases, num_questions) > 30


# --- tokens, positions, targets ---------------------------------------------------------------------------------------


def test_positions_follow_the_models_rule(bench):
    start, pad = bench.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|video_pad|>"])
    for generate, _ in product(bench.generator.tasks.values(), range(5)):
        sample = generate()
        assert sample.ids.count(pad) == len(sample.pairs) * ROWS * COLUMNS
        if any(pair < 0 for pair in sample.pairs):
            continue  # single frames are closer together; `check` compares theirs with the product's
        runs: list[int | VisualTokenSpan] = [0]
        i = 0
        while i < len(sample.ids):
            if sample.ids[i] != pad:
                runs[-1] += 1
                i += 1
                continue
            assert sample.ids[i - 1] == start
            num_tokens = next(n for n, token in enumerate(sample.ids[i:]) if token != pad)
            temporal = bench.product.temporal(bench.clip(num_tokens // (ROWS * COLUMNS)))
            runs += [VisualTokenSpan(temporal, ROWS, COLUMNS), 0]
            i += num_tokens
        assert [list(axis) for axis in zip(*sample.positions, strict=True)] == position_ids(runs).tolist()


def test_the_token_after_a_target_is_a_correct_one(bench):
    for generate, _ in product(bench.generator.tasks.values(), range(5)):
        sample = generate()
        assert sample.targets
        assert all(sample.ids[target.position + 1] in target.tokens for target in sample.targets)


def test_every_token_of_a_reply_is_a_target(bench):
    for task, _ in product(("answer", "temporal", "most", "rerank", "caption"), range(5)):
        sample = bench.generator.tasks[task]()
        targets = [sample.ids[target.position + 1] for target in sample.targets]
        replies = "".join(f"{reply}<|im_end|>" for _, reply in bench.turns(sample))
        assert bench.tokenizer.decode(targets) == replies


def test_samples_depend_on_the_seed(tokenizer, bench):
    for task in bench.generator.tasks:
        one, two = (SampleGenerator(tokenizer, bench.takes, seed=9).tasks[task]() for _ in range(2))
        assert one == two
        assert one != SampleGenerator(tokenizer, bench.takes, seed=10).tasks[task]()
