"""The made world, its films and questions, the lessons, the training, and the embedded model itself."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lvqa import LongVideoQA, prompts
from lvqa.answering import Answerer
from lvqa.backbones.chat import ChatFormat
from lvqa.backbones.positions import Cells, position_ids
from lvqa.backbones.prompt import Prompt, VisualBlock
from lvqa.backbones.qwen_vl import Qwen25VL
from lvqa.embedding import Embedder
from lvqa.records import Candidate, Clip, Counts, LvqaError, Question, Video
from lvqa.rerank import MultipleChoice
from lvqa.tiny import language
from lvqa.tiny.build import WEIGHTS, build_tokenizer
from lvqa.tiny.films import Film, ask_about, benchmark_line, make_films, write_film, write_script
from lvqa.tiny.lessons import COLUMNS, ROWS, Lesson, Teacher, alone
from lvqa.tiny.training import Course, Stage
from lvqa.tiny.world import ATTRIBUTES, HEIGHT, WIDTH, draw, random_scene
from lvqa.video import Grid, probe, read_frames
from lvqa.visual import Pair, VisualTokens, runs_of_pairs

SEED, MINUTES, QUESTIONS = 5, 3, 12
"""The film that the packaged model is asked about."""
ORACLE_RIGHT_AT_LEAST = 8
"""Of those questions, when the model is shown frames of the right moment."""
WEIGHTS_MB = 20

# --- what a text says, read here without the code that wrote it -------------------------------------------------------

SAID = {
    "colour": r"\b(red|orange|yellow|green|blue|purple|white|black)\b",
    "shape": r"\b(ball|star|heart|cross|car|fish|house|boat)\b",
    "motion": r"\bthat (?:moves|stands) (left|right|up|down|still)\b",
    "number": r"\bwith the number (\d)\b",
    "place": r"\bin the (sea|forest|desert|city|space|snow)\b",
}
ASKED = {
    "colour": r"What colour is |Which colour does |.* is shown\. In what colour\?$",
    "shape": r"What is the (?!motion of )|What kind of thing is |Which shape does ",
    "motion": r"How does .* move\?$|Which way does .* go\?$|What is the motion of ",
    "number": r"What number is shown with |Which number is on the sign |What does the sign say while ",
    "place": r"Where is |In what place is |What is behind ",
}


def said_in(text: str) -> dict[str, str]:
    """The attributes that a text gives, with their values."""
    found = {attribute: re.search(pattern, text) for attribute, pattern in SAID.items()}
    return {attribute: match[1] for attribute, match in found.items() if match}


def asked_in(text: str) -> str:
    """The attribute that a question asks for, by its wording."""
    (attribute,) = (attribute for attribute, pattern in ASKED.items() if re.match(pattern, text))
    return attribute


def holds(scene, said: dict[str, str]) -> bool:
    return all(getattr(scene, attribute) == value for attribute, value in said.items())


# --- scripts and questions --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked() -> list[tuple[Film, list[Question]]]:
    """Twenty hours of script with 24 questions each."""
    films = [write_script(seed, 60) for seed in range(20)]
    return [(film, ask_about(film, 24)) for film in films]


def test_a_script_follows_from_its_seed():
    assert write_script(3, 20) == write_script(3, 20)
    assert ask_about(write_script(3, 20), 8) == ask_about(write_script(3, 20), 8)
    others = [write_script(seed, 20) for seed in (4, 5, 900_003)]
    assert all(write_script(3, 20).shots[0].scene != film.shots[0].scene for film in others)
    assert len({film.key for film in others}) == 3


def test_fewer_questions_are_the_first_of_more():
    film = write_script(3, 60)
    assert ask_about(film, 5) == ask_about(film, 24)[:5]


@pytest.mark.parametrize("minutes", [1, 2.5, 20, 60, 180])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shots_fill_the_film_and_cuts_lie_on_frames(seed, minutes):
    film = write_script(seed, minutes)
    assert film.shots[0].start_seconds == 0 and film.duration_seconds == minutes * 60
    for shot, following in pairwise(film.shots):
        assert 8 <= shot.end_seconds - shot.start_seconds <= 40
        assert shot.end_seconds == following.start_seconds
        assert shot.end_seconds * 8 == int(shot.end_seconds * 8)
        assert shot.scene != following.scene
    assert 8 <= film.shots[-1].end_seconds - film.shots[-1].start_seconds < 48  # it takes what is left over


def test_one_shot_alone_fits_what_a_question_says(asked):
    for film, questions in asked:
        for question in questions:
            said = said_in(question.text)
            assert len(said) == 3, question.text
            fitting = [shot for shot in film.shots if holds(shot.scene, said)]
            assert len(fitting) == 1, question.text
            assert (fitting[0].start_seconds, fitting[0].end_seconds) == question.evidence_seconds


def test_one_option_alone_is_right(asked):
    for film, questions in asked:
        for question in questions:
            (scene,) = (shot.scene for shot in film.shots if holds(shot.scene, said_in(question.text)))
            attribute = asked_in(question.text)
            assert attribute not in said_in(question.text)
            assert len(set(question.options)) == 4 and set(question.options) <= set(ATTRIBUTES[attribute])
            right = [
                letter
                for letter, option in zip("ABCD", question.options, strict=True)
                if option == getattr(scene, attribute)
            ]
            assert right == [question.answer]


def test_questions_are_distinct_and_belong_to_their_film(asked):
    for film, questions in asked:
        assert len({question.text for question in questions}) == len({question.id for question in questions}) == 24
        assert {question.video_id for question in questions} == {film.key}
        assert all(question.tags == (language.LABELS[asked_in(question.text)],) for question in questions)


def test_letters_are_balanced_and_wordings_vary(asked):
    questions = [question for _, asked_here in asked for question in asked_here]
    letters = Counter(question.answer for question in questions)
    assert all(0.19 < letters[letter] / len(questions) < 0.31 for letter in "ABCD"), letters
    by_attribute = Counter(asked_in(question.text) for question in questions)
    assert all(by_attribute[attribute] > 0.12 * len(questions) for attribute in ATTRIBUTES), by_attribute
    for attribute in ATTRIBUTES:
        texts = [question.text for question in questions if asked_in(question.text) == attribute]
        used = {pattern for pattern, text in product(ASKED[attribute].split("|"), texts) if re.match(pattern, text)}
        assert len(used) == 3, used
        values = {question.options["ABCD".index(question.answer)] for question in questions}
        assert values >= set(ATTRIBUTES[attribute])


def test_the_question_alone_does_not_tell_the_answer(asked):
    """Guessing a value by what is asked for, as frequent as it is in other films, does no better than chance."""
    train = Counter(
        (asked_in(question.text), question.options["ABCD".index(question.answer)])
        for _, questions in asked[:10]
        for question in questions
    )
    held = [question for _, questions in asked[10:] for question in questions]
    guesses = [max("ABCD", key=lambda a, q=q: train[asked_in(q.text), q.options["ABCD".index(a)]]) for q in held]
    hits = sum(guess == question.answer for guess, question in zip(guesses, held, strict=True))
    assert hits / len(held) < 0.34


def test_too_many_questions_for_a_film_are_refused():
    with pytest.raises(LvqaError, match=r"film of 2 minutes has room for \d+ questions, 5000 were asked for"):
        ask_about(write_script(0, 2), 5000)


def test_the_lines_have_lvbenchs_layout(asked):
    for film, questions in asked[:5]:
        line = json.loads(json.dumps(benchmark_line(film, questions)))
        assert set(line) == {"key", "type", "qa", "video_info"}
        assert line["video_info"] == {
            "duration_minutes": 60.0,
            "fps": 8,
            "resolution": {"width": WIDTH, "height": HEIGHT},
        }
        for told, question in zip(line["qa"], questions, strict=True):
            assert set(told) == {"uid", "question", "answer", "question_type", "time_reference"}
            stem, *options = told["question"].split("\n")
            assert stem == question.text
            assert options == [f"({letter}) {text}" for letter, text in zip("ABCD", question.options, strict=True)]
            assert (told["answer"], told["question_type"]) == (question.answer, list(question.tags))
            times = re.fullmatch(r"(\d\d+):([0-5]\d)-(\d\d+):([0-5]\d)", told["time_reference"])
            assert times
            start, end = (60 * int(times[i]) + int(times[i + 1]) for i in (1, 3))
            first, last = question.evidence_seconds
            assert first <= start < end <= last and start - first < 1 and last - end < 1


# --- films ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    """The folder and the film of SEED."""
    folder = tmp_path_factory.mktemp("made")
    (path,) = make_films(folder, num_films=1, minutes=MINUTES, num_questions=QUESTIONS, seed=SEED)
    return folder, path


def mean_difference(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - two.astype(float)).mean())


def test_a_written_film_shows_its_script(made):
    video, film = probe(made[1]), write_script(SEED, MINUTES)
    assert (video.height, video.width, video.frames_per_second) == (HEIGHT, WIDTH, 8)
    assert video.duration_seconds == film.duration_seconds
    moments = sorted(
        (seconds, shot)
        for shot in film.shots
        for seconds in (shot.start_seconds, (shot.start_seconds + shot.end_seconds) // 2, shot.end_seconds - 1 / 8)
    )
    times = [seconds for seconds, _ in moments]
    pixels = np.concatenate([batch.pixels for batch in read_frames(video, times, height=HEIGHT, width=WIDTH)])
    for (seconds, shot), shown in zip(moments, pixels, strict=True):
        drawn = draw(shot.scene, seconds - shot.start_seconds)
        assert mean_difference(shown, drawn) < 6, seconds
        others = [other for other in film.shots if other is not shot]
        assert all(mean_difference(shown, draw(other.scene, 1)) > 12 for other in others), seconds


def test_things_move_as_the_script_says():
    rng = np.random.default_rng(0)
    for motion, (dx, dy) in {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}.items():
        scene = dataclasses.replace(random_scene(rng), motion=motion, x=160, y=120, speed=30, radius=50)
        before, after = draw(scene, 0).astype(int), draw(scene, 0.5).astype(int)
        moved = np.roll(before, (15 * dy, 15 * dx), axis=(0, 1))
        middle = np.s_[110:130, 150:170]
        assert np.abs(after[middle] - moved[middle]).mean() < 8
        assert (np.abs(after - before).sum() == 0) == (motion == "still")


def test_every_pair_of_values_looks_different():
    scene = dataclasses.replace(random_scene(np.random.default_rng(1)), motion="still")
    for attribute, values in ATTRIBUTES.items():
        if attribute != "motion":
            frames = [draw(dataclasses.replace(scene, **{attribute: value}), 0) for value in values]
            assert all(mean_difference(one, two) > 0.15 for i, one in enumerate(frames) for two in frames[:i]), (
                attribute
            )


def test_a_film_that_is_there_is_kept(tmp_path):
    def make() -> list[Path]:
        return make_films(tmp_path, num_films=2, minutes=1, num_questions=2, seed=11)

    first, second = make()
    kept, content = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    assert make() == [first, second]
    assert first.stat().st_mtime_ns == kept
    assert second.read_bytes() == content
    lines = [json.loads(line) for line in (tmp_path / "video_info.meta.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == [first.stem, second.stem]
    assert [[told["uid"] for told in line["qa"]] for line in lines] == [["11-0", "11-1"], ["12-0", "12-1"]]


def test_an_interrupted_film_leaves_nothing(tmp_path):
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_film(write_script(0, 1), tmp_path / "film.mp4", interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_films": 0}, "films must be 1 or more, got 0"),
        ({"minutes": 0.5}, "minutes must be 1 or more, got 0.5"),
        ({"minutes": -1}, "minutes must be 1 or more, got -1"),
        ({"minutes": float("nan")}, "minutes must be 1 or more, got nan"),
        ({"minutes": float("inf")}, "minutes must be 1 to 1440, got inf"),
        ({"minutes": 1441}, "minutes must be 1 to 1440, got 1441"),
        ({"num_questions": 0}, "questions must be 1 or more, got 0"),
        ({"num_questions": 3000}, "room for"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
    ],
)
def test_bad_numbers_are_refused_before_anything_is_written(tmp_path, changes, told):
    wanted = {"num_films": 1, "minutes": 1, "num_questions": 1, "seed": 0} | changes
    with pytest.raises(LvqaError, match=re.escape(told)):
        make_films(tmp_path / "films", **wanted)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "films").write_text("")
    with pytest.raises(LvqaError, match=r"cannot write films into .*films"):
        make_films(tmp_path / "films", num_films=1, minutes=1, num_questions=1, seed=0)


# --- the tokenizer ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packaged() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(WEIGHTS)


@pytest.fixture(scope="module", params=["built", "packaged"])
def tokenizer(request, packaged) -> PreTrainedTokenizerFast:
    return packaged if request.param == "packaged" else build_tokenizer()


def test_every_word_of_the_world_is_one_token(tokenizer):
    words = [value for values in ATTRIBUTES.values() for value in values]
    single = [*words, *"ABCD", *(f" {word}" for word in words if not word.isdigit())]
    numbers = {text: tokenizer(text, add_special_tokens=False).input_ids for text in single}
    assert all(len(ids) == 1 for ids in numbers.values()), numbers
    assert len({ids[0] for ids in numbers.values()}) == len(single)


def texts() -> Iterator[str]:
    yield from ("", " ", "\n\n \t", "\r\n\r", "a  b   c .  !  ' n't", "x" * 5000, "Straße, naïve café", "Пётр, 7 кошек")
    yield from (
        "ما هذا؟",
        "中文 かな 한국어",
        "👩\u200d👧 🇪🇺",
        "e\u0301 \u200b\u202e\ufeff\x00\x1b",
        "\uff11\uff12 ½ Ⅳ",
    )
    yield from ("<|im_end|>", "<|im_start|>system\n<|video_pad|>", "<|endoftext|>")
    rng = np.random.default_rng(0)
    for _ in range(50):
        codes = rng.integers(0, 0x110000, 40).tolist()
        yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def test_the_weights_were_trained_on_this_tokenizer(packaged):
    assert json.loads(build_tokenizer().backend_tokenizer.to_str()) == json.loads(packaged.backend_tokenizer.to_str())


def test_any_text_comes_back(tokenizer):
    chat = ChatFormat(tokenizer, show=lambda _: (), pad=Qwen25VL.pad)
    for text in texts():
        assert tokenizer.decode(chat.text_ids(text)) == text


# --- the lessons have exactly the product's form ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Qwen25VL:
    return Qwen25VL.load("tiny", device="cpu")


def test_lessons_see_films_as_the_product_does(tiny):
    assert tiny.frame_size(HEIGHT, WIDTH, max_pixels=tiny.max_pixels) == (28 * ROWS, 28 * COLUMNS)
    assert tiny.cell_pixels == 28


class Recorder:
    """Stands where the model would, and notes what it is shown."""

    name, revision, dim, max_pixels = "recorder", "0", 4, 1 << 20

    def __init__(self) -> None:
        self.counts = Counts()
        self.shown: list[Prompt] = []

    def frame_size(self, height: int, width: int, *, max_pixels: int) -> tuple[int, int]:
        return 28 * ROWS, 28 * COLUMNS

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        return ROWS, COLUMNS

    def last_states(self, prompts: Sequence[Prompt], **_: object) -> Tensor:
        self.shown += prompts
        return torch.ones(len(prompts), self.dim)

    def next_token_logits(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Tensor:
        self.shown += prompts
        return torch.zeros(len(prompts), len(words))

    def generate(self, prompt: Prompt, *, max_new_tokens: int = 64) -> str:
        self.shown.append(prompt)
        return ""


class NoPixels(VisualTokens):
    """The store as the product lays it out, with tokens of nothing."""

    def stream(self, groups: Sequence[Sequence[Pair]]) -> Iterator[list[Tensor]]:
        for group in groups:
            yield [torch.zeros(ROWS * COLUMNS, 4) for _ in group]


class Bench:
    """A teacher of 400 scenes, and the product's rooms in front of a recorder."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tiny: Qwen25VL) -> None:
        rng = np.random.default_rng(3)
        self.scenes = [random_scene(rng) for _ in range(400)]
        self.teacher = Teacher(tokenizer, self.scenes, seed=4)
        self.product = tiny
        self.tokenizer = tokenizer
        self.recorder = Recorder()
        video = Video(Path("/film.mp4"), "film", 20_000.0, HEIGHT, WIDTH, 8.0)
        self.store = NoPixels(video, Grid.of(video, 1.0), self.recorder)

    def read(self, lesson: Lesson) -> tuple[list[str], list[int]]:
        """The texts of the first user turn, and how many pairs stand between them."""
        text = self.tokenizer.decode(lesson.ids[: lesson.targets[0].position + 1])
        content = re.fullmatch(
            r"<\|im_start\|>system\nYou are a helpful assistant\.<\|im_end\|>\n<\|im_start\|>user\n"
            r"(.*)<\|im_end\|>\n<\|im_start\|>assistant\n",
            text,
            flags=re.DOTALL,
        )
        assert content, text
        cells = re.findall(r"<\|vision_start\|>((?:<\|video_pad\|>)+)<\|vision_end\|>", content[1])
        texts = re.split(r"<\|vision_start\|>.*?<\|vision_end\|>", content[1])
        return texts, [len(run) // (len("<|video_pad|>") * ROWS * COLUMNS) for run in cells]

    def block(self, num_pairs: int) -> VisualBlock:
        """A clip as the pipeline shows it."""
        (block,) = self.store.blocks([[(2 * i, 2 * i + 1) for i in range(num_pairs)]])
        return block

    def check(self, lesson: Lesson) -> None:
        """The lesson up to its first reply is what the recorder was shown last: tokens, positions and places."""
        shown = self.product._chat.encode(self.recorder.shown.pop())
        length = lesson.targets[0].position + 1
        assert lesson.ids[:length] == shown.ids.tolist()
        assert [list(axis) for axis in zip(*lesson.positions[:length], strict=True)] == shown.positions.tolist()
        assert len(lesson.pairs) * ROWS * COLUMNS == int(shown.visual.sum())

    def said(self, token: int) -> str:
        return str(self.tokenizer.decode([token])).strip()


@pytest.fixture(scope="module")
def bench(packaged, tiny) -> Bench:
    return Bench(packaged, tiny)


def shown_frames(starts: Sequence[int], num_pairs: Sequence[int], pairs: Sequence[int]) -> list[Pair]:
    """The grid frames of a lesson's blocks: each block runs on from its time; a negative pair is one frame."""
    scenes, frames = iter(pairs), []
    for start, n in zip(starts, num_pairs, strict=True):
        first = start
        for _ in range(n):
            frames.append((first, first + (next(scenes) >= 0)))
            first = frames[-1][1] + 1
    return frames


@pytest.mark.parametrize("worked", [0.0, 1.0])
def test_answer_lessons_are_the_products_prompts(bench, worked):
    checked = free = 0
    while checked < 60:
        lesson = bench.teacher.answer(worked, num_turns=1)
        texts, num_pairs = bench.read(lesson)
        clock = [re.fullmatch(r"\[(\d\d+):(\d\d)\]", text) for text in texts[:-1]]
        assert all(clock), texts
        starts = [60 * int(time[1]) + int(time[2]) for time in clock]
        frames = shown_frames(starts, num_pairs, lesson.pairs)
        if len(runs_of_pairs(frames)) != len(starts):
            continue  # the product would show these as fewer runs
        stem, *lines = texts[-1].split("\n")
        options = tuple(line[3:] for line in lines if re.match(r"[A-D]\. ", line))
        question = Question(stem, options)
        Answerer(time_encoding="text").answer(bench.recorder, question, frames, bench.store)
        bench.check(lesson)
        scenes = {bench.scenes[i if i >= 0 else alone(i)] for i in lesson.pairs}
        (right,) = {getattr(scene, asked_in(stem)) for scene in scenes if holds(scene, said_in(stem))}
        said = [bench.said(target.tokens[0]) for target in lesson.targets[:-1]]
        letter = ["ABCD"[options.index(right)]] if options else []
        assert said == (letter if options and not worked else [right, *letter])
        checked, free = checked + 1, free + (not options)
    assert free > 0


@pytest.mark.parametrize("worked", [0.0, 1.0])
def test_rerank_lessons_are_the_products_prompts(bench, worked):
    verdicts = Counter()
    for _ in range(80):
        lesson = bench.teacher.rerank(worked)
        (_, after), (num_pairs,) = bench.read(lesson)
        query = re.search(r"\nQuery: (.*)\nA\. Yes", after)
        assert query
        candidate = Candidate(Clip("film", 0, 16), embed_score=0.0)
        block = bench.block(num_pairs)
        reranker = MultipleChoice(layout="clip_first")
        reranker.rerank(bench.recorder, query[1], [candidate], lambda _, block=block: iter([block]))
        bench.check(lesson)
        fits = any(holds(bench.scenes[i], said_in(query[1])) for i in lesson.pairs)
        verdict = bench.said(lesson.targets[int(worked)].tokens[0])
        assert verdict == ("A" if fits else "B")
        verdicts[verdict] += 1
    assert min(verdicts["A"], verdicts["B"]) > 20


SWITCHES = product([True, False], repeat=3)
EMBEDDERS = [
    *(Embedder(task=task, semantics=semantics, noise=noise) for task, semantics, noise in SWITCHES),
    Embedder(prompt="e5v"),
]


def embedder_behind(text: str, of: str) -> Embedder:
    """The embedder whose whole prompt for `of` the text ends with; of several the one with the longest prompt."""
    fitting = [embedder for embedder in EMBEDDERS if text.endswith(embedder._text(of))]
    return max(fitting, key=lambda embedder: len(embedder._text(of)))


def test_clip_word_lessons_are_the_products_prompts(bench):
    used = set()
    for _ in range(80):
        lesson = bench.teacher.clip_word(0.0)
        (nothing, text), (num_pairs,) = bench.read(lesson)
        assert nothing == ""
        embedder = embedder_behind(text, prompts.CLIP)
        embedder.clips(bench.recorder, [bench.block(num_pairs)])
        bench.check(lesson)
        words = {getattr(bench.scenes[i], attribute) for i in lesson.pairs for attribute in ATTRIBUTES}
        assert {bench.said(token) for token in lesson.targets[0].tokens} == words
        used.add(embedder)
    assert Embedder() in used and Embedder(prompt="e5v") in used


def test_query_word_lessons_are_the_products_prompts(bench):
    used = set()
    for _ in range(80):
        lesson = bench.teacher.query_word(0.0)
        (text,), _ = bench.read(lesson)
        query, prompt = text.split("\n", 1)
        embedder = embedder_behind(prompt, prompts.QUERY)
        embedder.query(bench.recorder, query)
        bench.check(lesson)
        words = {bench.said(token) for token in lesson.targets[0].tokens}
        assert words <= set(re.findall(r"\w+", query)) and words >= set(said_in(query).values())
        used.add(embedder)
    assert Embedder() in used and Embedder(prompt="e5v") in used


def test_positions_follow_the_rule_in_every_lesson(bench):
    start, pad = bench.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|video_pad|>"])
    # Single frames stand closer together; `check` compares theirs with the product's.
    tasks = [make for name, make in bench.teacher.tasks.items() if name != "answer"]
    for make, _ in product(tasks, range(5)):
        lesson = make(0.5)
        runs: list[int | Cells] = [0]
        place = 0
        while place < len(lesson.ids):
            if lesson.ids[place] != pad:
                runs[-1] += 1
                place += 1
                continue
            assert lesson.ids[place - 1] == start
            cells = next(i for i, token in enumerate(lesson.ids[place:]) if token != pad)
            temporal = bench.product.temporal(bench.block(cells // (ROWS * COLUMNS)))
            runs += [Cells(temporal, ROWS, COLUMNS), 0]
            place += cells
        assert [list(axis) for axis in zip(*lesson.positions, strict=True)] == position_ids(runs).tolist()
        assert lesson.ids.count(pad) == len(lesson.pairs) * ROWS * COLUMNS


def test_the_token_after_a_target_is_one_of_the_right_ones(bench):
    for make, _ in product(bench.teacher.tasks.values(), range(5)):
        lesson = make(0.5)
        assert lesson.targets
        assert all(lesson.ids[target.position + 1] in target.tokens for target in lesson.targets)


def test_lessons_follow_from_the_seed(packaged, bench):
    for name in bench.teacher.tasks:
        one, two = (Teacher(packaged, bench.scenes, seed=9).tasks[name](0.5) for _ in range(2))
        assert one == two
        assert one != Teacher(packaged, bench.scenes, seed=10).tasks[name](0.5)


# --- the training -----------------------------------------------------------------------------------------------------

STAGES = (
    Stage(name="vision", steps=3, learning_rate=1e-3),
    Stage(name="speak", steps=4, learning_rate=2e-3, mix={"talk": 1.0, "letter drill": 1.0}, tokens=300),
)


class ShortCourse(Course):
    """Few scenes, a small examination, and a plug to pull."""

    num_scenes, pairs_per_batch = 30, 4

    def _examine(self, stage: Stage) -> None:
        """It would take longer than the training, and changes nothing of it."""


class EndsBetweenStages(ShortCourse):
    def _begin(self, stage: Stage) -> None:
        if self.stage == 1:
            raise KeyboardInterrupt
        super()._begin(stage)


class EndsAfterAStage(ShortCourse):
    def _save(self, optimizer: torch.optim.Optimizer | None) -> None:
        if optimizer is None:
            raise KeyboardInterrupt
        super()._save(optimizer)


class EndsWithinAStage(ShortCourse):
    """Saves as every 500th step does, but at the second."""

    def _lesson_loss(self, stage: Stage) -> Tensor:
        if self.step == 2:
            self._save(made_optimizers[-1])
            raise KeyboardInterrupt
        return super()._lesson_loss(stage)


made_optimizers: list[torch.optim.Optimizer] = []


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict[str, Tensor]:
    course = ShortCourse(tmp_path_factory.mktemp("unbroken"), seed=1, device="cpu", stages=STAGES)
    before = {name: value.clone() for name, value in course.model.state_dict().items()}
    course.run()
    after = course.model.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert any("visual" in name for name in moved) and any("language_model.layers" in name for name in moved)
    return after


@pytest.mark.parametrize("broken", [EndsBetweenStages, EndsAfterAStage, EndsWithinAStage])
def test_training_goes_on_where_it_stopped(tmp_path, monkeypatch, unbroken, broken):
    class Noted(torch.optim.AdamW):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            made_optimizers.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Noted)
    with pytest.raises(KeyboardInterrupt):
        broken(tmp_path, seed=1, device="cpu", stages=STAGES).run()
    course = ShortCourse(tmp_path, seed=1, device="cpu", stages=STAGES)
    course.run()
    resumed = course.model.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in unbroken.items())
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


# --- the packaged model -----------------------------------------------------------------------------------------------


def test_the_packaged_model_is_small_and_whole(tiny):
    size = sum(path.stat().st_size for path in WEIGHTS.iterdir())
    assert size <= WEIGHTS_MB * 1e6
    shown = [("What colour is the star?",), (a_clip(tiny), "Describe the video clip in one sentence.")]
    states = tiny.last_states(shown)
    assert states.shape == (2, tiny.dim) and bool(torch.isfinite(states).all())


def a_clip(tiny: Qwen25VL) -> VisualBlock:
    pixels = np.stack([draw(random_scene(np.random.default_rng(0)), second)[::2, ::2] for second in (0.0, 1.0)])
    tokens = tiny.encode_pairs(pixels[None, :, : 28 * ROWS, : 28 * COLUMNS])
    return VisualBlock(tokens, ROWS, COLUMNS)


def test_the_packaged_model_answers_when_shown_the_moment(made, tmp_path):
    qa = LongVideoQA.load("tiny", overrides=["model.device=cpu", f"store.folder={tmp_path}"])
    questions = ask_about(write_script(SEED, MINUTES), QUESTIONS)
    answers = [qa.answer(made[1], question, frames=16, method="oracle") for question in questions]
    assert sum(answer.option == answer.question.answer for answer in answers) >= ORACLE_RIGHT_AT_LEAST
