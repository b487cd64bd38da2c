"""Questions by voice: reading files, and Qwen2.5-Omni's audio tokens against the library's whole model."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_models
import torch
from click.testing import CliRunner
from transformers import WhisperFeatureExtractor

from lvqa.audio import MAX_SECONDS, SAMPLES_PER_SECOND, read_audio
from lvqa.cli.main import lvqa_command
from lvqa.models import load_model
from lvqa.models.chat import collate
from lvqa.models.qwen_omni import Qwen25Omni
from lvqa.pipeline import LongVideoQA
from lvqa.records import LvqaError, Question


def write_wave(path: Path, channels: np.ndarray, *, rate: int = SAMPLES_PER_SECOND) -> Path:
    """Write (channels, samples) from -1 to 1 in 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((channels.T * 32767).astype("<i2").tobytes())
    return path


def tone(seconds: float, *, rate: int = SAMPLES_PER_SECOND) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wave(tmp_path_factory.mktemp("voice") / "voice.wav", tone(1.5)[None])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.save("qwen2_5_omni", tmp_path_factory.mktemp("omni"))


@pytest.fixture(scope="module")
def video_path(synthetic_video: Callable[..., Path]) -> Path:
    return synthetic_video(seed=3)


@pytest.fixture(scope="module")
def omni(folder: Path) -> Qwen25Omni:
    model = load_model(str(folder), device="cpu", dtype="float32")
    assert isinstance(model, Qwen25Omni)
    return model


def test_a_file_is_read_at_the_models_rate_with_its_channels_mixed(voice: Path, tmp_path: Path) -> None:
    assert np.abs(read_audio(voice) - tone(1.5)).max() < 1e-4
    stereo = write_wave(tmp_path / "stereo.wav", np.stack([tone(1, rate=48_000), np.zeros(48_000)]), rate=48_000)
    mixed = read_audio(stereo)
    assert len(mixed) == pytest.approx(SAMPLES_PER_SECOND, abs=32)
    assert np.abs(mixed[1000:-1000]).max() == pytest.approx(np.abs(tone(1)).max() / 2, rel=0.5)


@pytest.mark.slow
def test_bad_voices_are_one_line(tmp_path: Path, voice: Path, video_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    write_wave(tmp_path / "empty.wav", np.zeros((1, 0)))
    write_wave(tmp_path / "long.wav", np.zeros((1, 1000 * (MAX_SECONDS + 1))), rate=1000)
    bad = {"nowhere.wav": "no such file", "text.wav": "WAV, MP3", "empty.wav": "no sound", ".": "cannot be read"}
    for name, message in (bad | {"long.wav": "longer than 300 seconds", str(video_path): "cannot be read"}).items():
        with pytest.raises(LvqaError, match=message) as caught:
            read_audio(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("with_text", [True, False])
@pytest.mark.slow
def test_audio_logits_equal_the_librarys(omni: Qwen25Omni, with_text: bool) -> None:
    """The library's whole model takes the samples' features and our token ids, and counts positions by itself."""
    samples = (tone(2.3) + 0.1 * np.random.default_rng(0).normal(size=int(2.3 * SAMPLES_PER_SECOND))).astype(np.float32)
    prompt = ("Listen:", omni.encode_audio(samples), "What was it?" if with_text else "")
    ids = collate([omni.encode_prompt(prompt)]).ids
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    inputs = extractor(samples, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt")
    with torch.no_grad():
        expected = omni.library(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            input_features=inputs.input_features,
            feature_attention_mask=inputs.attention_mask,
            use_cache=False,
        ).logits[:, -1]
    torch.testing.assert_close(omni.next_token_logits([prompt]), expected, atol=1e-4, rtol=1e-4)
    assert prompt[1].num_pairs == pytest.approx(2.3 * 25, abs=1)


@pytest.mark.slow
def test_audio_moves_the_positions_as_text_does_and_batches_equal_singles(omni: Qwen25Omni) -> None:
    one, other = (omni.encode_audio(tone(seconds).astype(np.float32)) for seconds in (0.5, 1.2))
    positions = omni.encode_prompt(("a", one, "b")).positions
    assert torch.equal(positions, torch.arange(positions.shape[1]).expand(3, -1))
    prompts = [("a", one, "b"), (other, "which of the two?"), ("none",)]
    together = omni.last_hidden_states(prompts)
    alone = torch.cat([omni.last_hidden_states([prompt]) for prompt in prompts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_spoken_question_goes_the_whole_way(
    omni: Qwen25Omni, folder: Path, voice: Path, video_path: Path, tmp_path: Path
) -> None:
    settings = ["model.device=cpu", "model.dtype=float32", "model.max_pixels=3136", "rerank.pool=2"]
    qa = LongVideoQA.load(str(folder), overrides=[*settings, f"store.folder={tmp_path / 'store'}"])
    spoken = qa.answer(video_path, Question("", ("red", "blue"), voice=voice), frames=4)
    other = write_wave(tmp_path / "other.wav", np.random.default_rng(0).uniform(-1, 1, (1, 9000)))
    assert spoken.option in ("A", "B") and len(spoken.frames) == 4
    louder = qa.answer(video_path, Question("", ("red", "blue"), voice=other), frames=4)
    assert [c.embed_score for c in spoken.evidence] != [c.embed_score for c in louder.evidence]


@pytest.mark.slow
def test_a_model_without_audio_refuses_a_voice(voice: Path, video_path: Path, tmp_path: Path) -> None:
    words = ["ask", str(video_path), "--model", "tiny", "--store", str(tmp_path / "store"), "--quiet"]
    refused = CliRunner().invoke(lvqa_command, [*words, "--voice", str(voice)])
    assert refused.exit_code == 1 and "'tiny' does not hear" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "store").exists()
    silent = CliRunner().invoke(lvqa_command, words)
    assert silent.exit_code == 2 and "Missing argument 'QUESTION'" in silent.stderr
