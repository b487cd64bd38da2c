"""The same work as other code does it, which lvqa's stages are compared with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lvqa import prompts
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.models.vision import cut_patches
from lvqa.profiling.sample import Sample, sample_questions
from lvqa.profiling.task import Task
from lvqa.records import LvqaError, Video

BASELINES = (
    ("read frames", "read frames: decord"),
    ("read frames", "read frames: OpenCV"),
    ("read frames", "read frames: qwen-vl-utils"),
    ("index clips", "index clips: transformers"),
    ("rerank, question first", "rerank: transformers"),
    ("rerank, question first", "rerank: generated text"),
    ("rerank, clip first", "rerank: transformers"),
    ("rerank, clip first", "rerank: generated text"),
)
"""The pairs of tasks that are compared: a stage of lvqa, and a baseline that does the same work."""
_GENERATED_TOKENS = 4


def baseline_tasks(model: Qwen25VL, sample: Sample, *, num_clips: int) -> list[Task]:
    """Return the tasks of all baselines; those that run the model take the first `num_clips` clips, one at a time."""
    transformers = TransformersBaseline(model)
    query = sample_questions(1)[0].text
    clips = sample.pixels[:num_clips], sample.blocks[:num_clips]
    num = len(clips[0])
    return [
        *_reading_baselines(sample),
        Task(name="index clips: transformers", unit="clip", units=num, run=lambda: transformers.embed(*clips)),
        Task(
            name="rerank: transformers",
            unit="question and clip",
            units=num,
            run=lambda: transformers.rerank(query, *clips),
        ),
        Task(
            name="rerank: generated text",
            unit="question and clip",
            units=num,
            run=lambda: transformers.rerank_by_text(query, *clips, num_tokens=_GENERATED_TOKENS),
        ),
    ]


def _reading_baselines(sample: Sample) -> list[Task]:
    """Return the baselines that read frames; qwen-vl-utils is one where it is installed with torchvision."""
    if sample.is_noise:
        return []
    video, times = sample.video, sample.times_seconds
    size = {"height": sample.tokens.height, "width": sample.tokens.width}
    readers: dict[str, Callable[[], object]] = {
        "decord": partial(sample.read, "decord"),
        "OpenCV": partial(read_with_opencv, video, times, **size),
    }
    if all(find_spec(name) for name in ("qwen_vl_utils", "torchvision")):
        readers["qwen-vl-utils"] = partial(read_with_qwen_vl_utils, video, times[-1], **size)
    return [Task(name=f"read frames: {name}", unit="frame", units=len(times), run=run) for name, run in readers.items()]


@dataclass(frozen=True, slots=True)
class TransformersBaseline:
    """The transformers library on one clip at a time, from its pixels, as the code that comes with papers uses it.

    It computes every layer at every position, keeps all hidden states, and applies the language head at all positions.
    """

    model: Qwen25VL

    def embed(self, clips: Sequence[np.ndarray], blocks: Sequence[ClipTokens]) -> list[Tensor]:
        """Return the last hidden state at the last position of each clip.

        Args:
            clips: The pixels of each clip: (pairs, 2, height, width, 3) uint8.
            blocks: The visual tokens of each clip, which only give the prompt its length.

        Returns:
            A vector (dim,) for each clip.
        """
        text = prompts.embedding(prompts.CLIP)
        return [
            self._forward((block, text), pixels).hidden_states[-1][0, -1]
            for pixels, block in zip(clips, blocks, strict=True)
        ]

    def rerank(self, query: str, clips: Sequence[np.ndarray], blocks: Sequence[ClipTokens]) -> list[Tensor]:
        """Return the logits (vocabulary,) that follow each clip with the query."""
        before, after = prompts.rerank(query)
        return [
            self._forward((before, block, after), pixels).logits[0, -1]
            for pixels, block in zip(clips, blocks, strict=True)
        ]

    @torch.no_grad()
    def rerank_by_text(
        self, query: str, clips: Sequence[np.ndarray], blocks: Sequence[ClipTokens], *, num_tokens: int
    ) -> list[str]:
        """Return the text of `num_tokens` tokens that the model generates for each clip with the query."""
        before, after = prompts.rerank(query)
        texts = []
        for pixels, block in zip(clips, blocks, strict=True):
            inputs = self._inputs((before, block, after), pixels)
            length = inputs["input_ids"].shape[1]
            generated = self.model.library.generate(
                **inputs, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False
            )
            texts.append(self.model.tokenizer.decode(generated[0, length:]))
        return texts

    @torch.no_grad()
    def _forward(self, prompt: Prompt, pixels: np.ndarray) -> Any:
        return self.model.library(**self._inputs(prompt, pixels), output_hidden_states=True)

    def _inputs(self, prompt: Prompt, pixels: np.ndarray) -> dict[str, Tensor]:
        device, vision = self.model.device, self.model.library.config.vision_config
        patches = cut_patches(
            torch.from_numpy(pixels).to(device), patch=vision.patch_size, merge=vision.spatial_merge_size
        )
        sequence = self.model.encode_prompt(prompt)
        pairs, _, height, width, _ = pixels.shape
        return {
            "input_ids": sequence.ids[None].to(device),
            "attention_mask": torch.ones_like(sequence.ids[None]).to(device),
            "mm_token_type_ids": 2 * sequence.visual_mask[None].long().to(device),
            "pixel_values_videos": patches.flatten(0, 1).to(self.model.library.dtype),
            "video_grid_thw": torch.tensor([[pairs, height // vision.patch_size, width // vision.patch_size]]).to(
                device
            ),
        }


def decode_with_ffmpeg(video: Video, until_seconds: float, *, threads: int) -> None:
    """Decode every frame up to a time by FFmpeg's own program, and drop it."""
    command = ["ffmpeg", "-v", "error", "-threads", str(threads), "-t", str(until_seconds), "-i", os.fspath(video.path)]
    subprocess.run([*command, "-map", "0:v:0", "-f", "null", "-"], check=True, stdin=subprocess.DEVNULL)


def read_with_qwen_vl_utils(video: Video, until_seconds: float, *, height: int, width: int) -> int:
    """Read a frame a second up to a time by Qwen's own package, which needs torchvision; return how many it read."""
    from qwen_vl_utils import fetch_video

    request = {"video": os.fspath(video.path), "video_start": 0.0, "video_end": until_seconds, "fps": 1.0}
    size = {"resized_height": height, "resized_width": width, "max_frames": 1 << 20}
    return len(fetch_video({**request, **size}))


def read_with_opencv(video: Video, times_seconds: Sequence[float], *, height: int, width: int) -> int:
    """Read the frames at ascending times by OpenCV: grab every frame, fetch and scale those that are wanted.

    Returns:
        How many frames it read.

    Raises:
        LvqaError: OpenCV can't read the file.
    """
    capture = cv2.VideoCapture(os.fspath(video.path))
    capture.set(cv2.CAP_PROP_N_THREADS, 1)
    rate = capture.get(cv2.CAP_PROP_FPS)
    if not rate > 0:
        raise LvqaError(f"{video.path}: OpenCV can't read it")
    wanted_frames = [round(seconds * rate) for seconds in times_seconds]
    num_read = frame_index = 0
    while num_read < len(wanted_frames) and capture.grab():
        if frame_index == wanted_frames[num_read]:
            _, pixels = capture.retrieve()
            cv2.cvtColor(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
            num_read += 1
        frame_index += 1
    capture.release()
    return num_read
