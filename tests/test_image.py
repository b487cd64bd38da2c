"""Pictures in queries: preprocessing against the library's, and their way through every stage of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import small_models
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessor

from lvqa import prompts
from lvqa.image import read_image
from lvqa.library import search_library
from lvqa.models import load_model
from lvqa.models.vision import cut_patches, target_size
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError, Question
from lvqa.visual_tokens import image_tokens


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a picture of 150 x 200: coloured noise under a gradient."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    noise = np.random.default_rng(0).integers(0, 128, (150, 200, 3))
    Image.fromarray((noise + np.linspace(0, 127, 200)[None, :, None]).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def video_path(synthetic_video: Callable[..., Path]) -> Path:
    return synthetic_video(seed=3)


@pytest.fixture
def qa(video_path: Path, tmp_path: Path) -> LongVideoQA:
    return LongVideoQA.load("tiny", overrides=["model.device=cpu", f"store.folder={tmp_path}"])


def test_a_picture_is_read_as_the_librarys_processor_reads_it(picture: Path) -> None:
    limits = {"min_pixels": 4 * 784, "max_pixels": 20 * 784}
    pixels = read_image(picture, size_of=lambda height, width: target_size(height, width, **limits))
    ours = cut_patches(torch.tensor(np.stack([pixels, pixels]))[None], patch=14, merge=2)[0]
    processor = Qwen2VLImageProcessor(size={"shortest_edge": 4 * 784, "longest_edge": 20 * 784})
    expected = processor(images=[Image.open(picture)], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)


def test_a_photo_stands_upright_and_transparency_is_dropped(tmp_path: Path) -> None:
    sideways = Image.new("RGBA", (30, 10), (200, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    sideways.save(tmp_path / "sideways.png", exif=exif)
    assert read_image(tmp_path / "sideways.png").shape == (30, 10, 3)
    assert (read_image(tmp_path / "sideways.png") == (200, 0, 0)).all()


@pytest.mark.parametrize("family", small_models.SMALL)
def test_a_picture_is_a_pair_that_shows_it_twice(picture: Path, tmp_path: Path, family: str) -> None:
    model = load_model(str(small_models.save(family, tmp_path)), device="cpu", dtype="float32")
    clip = image_tokens(picture, model)
    height, width = model.frame_size(150, 200, max_pixels=model.max_pixels)
    pixels = read_image(picture, size_of=lambda *_: (height, width))
    assert torch.equal(clip.tokens, model.encode_pairs(np.stack([pixels, pixels])[None]))
    assert (clip.rows, clip.cols, clip.is_image) == (*model.token_grid(height, width), True)


def test_a_picture_is_no_larger_than_a_frame(picture: Path, tmp_path: Path) -> None:
    model = load_model(str(small_models.save("qwen2_5_vl", tmp_path)), device="cpu", dtype="float32")
    smaller = image_tokens(picture, model, max_pixels=6 * 28 * 28)
    assert smaller.rows * smaller.cols <= 6


def test_bad_pictures_are_one_line(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:2000])
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (1000, 4)).save(tmp_path / "narrow.png")
    bad = {"nowhere.png": "no such file", "cut.png": "cannot be read", "text.png": "PNG, JPEG", ".": "cannot be read"}
    for name, message in (bad | {"narrow.png": "4 x 1000"}).items():
        with pytest.raises(LvqaError, match=message) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    large = tmp_path / "large.png"
    large.write_bytes(picture.read_bytes())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(LvqaError, match="larger than 1,000 pixels"):
        read_image(large)


@pytest.mark.slow
def test_a_picture_is_decoded_once_as_long_as_its_file_stays_the_same(
    qa: LongVideoQA, video_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "picture.png", tmp_path / "other.png"
    Image.new("RGB", (84, 84), (0, 0, 255)).save(path)
    Image.new("RGB", (84, 84), (0, 255, 0)).save(other)
    decoded: list[Path] = []
    open_image = Image.open

    def counting_open(path: Path) -> Image.Image:
        decoded.append(path)
        return open_image(path)

    monkeypatch.setattr(Image, "open", counting_open)
    qa.search(video_path, image=path)
    assert decoded == [path], "checked, and then embedded and reranked"
    small = read_image(path, size_of=lambda height, width: (height // 2, width // 2))
    assert small.shape == (42, 42, 3) and read_image(path).shape == (84, 84, 3)
    assert decoded == [path]
    assert (read_image(other) == (0, 255, 0)).all() and (read_image(path) == (0, 0, 255)).all()
    assert decoded == [path, other]
    Image.new("RGB", (84, 84), (255, 0, 0)).save(path)
    assert (read_image(path) == (255, 0, 0)).all()
    assert decoded == [path, other, path]
    path.unlink()
    with pytest.raises(LvqaError, match="no such file"):
        read_image(path)


@pytest.mark.slow
def test_the_picture_is_in_every_stages_prompt(
    qa: LongVideoQA, video_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_prompts = []

    def recording(method):
        def record(first, *args, **kwargs):
            model_prompts.append(first[0] if isinstance(first, list) else first)
            return method(first, *args, **kwargs)

        return record

    for name in ("last_hidden_states", "next_token_logits", "prefill_prefix"):
        monkeypatch.setattr(qa.model, name, recording(getattr(qa.model, name)))
    score_with_prefix = qa.model.score_with_prefix
    monkeypatch.setattr(
        qa.model,
        "score_with_prefix",
        lambda prefixes, suffixes, words: (
            model_prompts.append(suffixes[0]) or score_with_prefix(prefixes, suffixes, words)
        ),
    )
    answer = qa.ask(video_path, "Where is this thing?", image=picture)
    tokens = image_tokens(picture, qa.model).tokens
    with_picture = [
        prompt
        for prompt in model_prompts
        for text, part in pairwise(prompt)
        if text == prompts.IMAGE and torch.equal(part.tokens, tokens)
    ]
    assert len(with_picture) == 3, "embedded, reranked and answered with it"
    assert answer.question.image == picture


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["question_first", "clip_first"])
def test_another_picture_is_another_query(video_path: Path, picture: Path, tmp_path: Path, layout: str) -> None:
    settings = ["model.device=cpu", f"store.folder={tmp_path}", f"rerank.layout={layout}"]
    qa = LongVideoQA.load("tiny", overrides=settings)
    changed = tmp_path / "changed.png"
    Image.new("RGB", (84, 84), (0, 0, 255)).save(changed)
    scores = [
        [(hit.clip, hit.embed_score, hit.rerank_score) for hit in qa.search(video_path, text, image=image)]
        for text, image in [("a ball", None), ("a ball", picture), ("a ball", changed), ("", picture)]
    ]
    assert all(one != two for n, one in enumerate(scores) for two in scores[:n])
    again = qa.search(video_path, "a ball", image=picture)
    assert [(hit.clip, hit.embed_score, hit.rerank_score) for hit in again] == scores[1]
    library = [hit.candidate for hit in search_library(qa, image=picture, top=4).hits]
    assert [hit.clip for hit in library] == [clip for clip, _, _ in scores[3]]
    for hit, (_, embed_score, rerank_score) in zip(library, scores[3], strict=True):
        assert (hit.embed_score, hit.rerank_score) == pytest.approx((embed_score, rerank_score), abs=1e-5)


def test_a_question_needs_words_and_a_search_a_query(qa: LongVideoQA, video_path: Path, picture: Path) -> None:
    with pytest.raises(LvqaError, match="question is empty"):
        qa.answer(video_path, Question(" ", image=picture))
    for search in (lambda: qa.search(video_path), lambda: search_library(qa)):
        with pytest.raises(LvqaError, match="question is empty"):
            search()
    with pytest.raises(LvqaError, match="no such file"):
        qa.ask(video_path, "Where?", image="nowhere.png")
