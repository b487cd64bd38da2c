"""The usual ways to do the same work, as the code that comes with papers has them: here to be compared with."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lvqa import prompts
from lvqa.models.prompt import ClipTokens, Prompt
from lvqa.models.qwen_vl import Qwen25VL
from lvqa.models.vision import cut_patches
from lvqa.records import LvqaError, Video


@dataclass(frozen=True, slots=True)
class PlainLoop:
    """transformers, a clip at a time, from its pixels: every layer at every position, all states, the full head."""

    model: Qwen25VL

    def embed(self, clips: Sequence[np.ndarray], blocks: Sequence[ClipTokens]) -> list[Tensor]:
        """(dim,) the last hidden state at the last position of each clip of (pairs, 2, height, width, 3) pixels."""
        text = prompts.embedding(prompts.CLIP)
        return [
            self._forward((block, text), pixels).hidden_states[-1][0, -1]
            for pixels, block in zip(clips, blocks, strict=True)
        ]

    def rerank(self, query: str, clips: Sequence[np.ndarray], blocks: Sequence[ClipTokens]) -> list[Tensor]:
        """(vocabulary,) the logits after each clip beside the query."""
        before, after = prompts.rerank(query)
        return [
            self._forward((before, block, after), pixels).logits[0, -1]
            for pixels, block in zip(clips, blocks, strict=True)
        ]

    @torch.no_grad()
    def rerank_by_text(
        self, query: str, clips: Sequence[np.ndarray], blocks: Sequence[ClipTokens], *, num_tokens: int
    ) -> list[str]:
        """What the model writes about each clip beside the query, so many tokens."""
        before, after = prompts.rerank(query)
        said = []
        for pixels, block in zip(clips, blocks, strict=True):
            inputs = self._inputs((before, block, after), pixels)
            length = inputs["input_ids"].shape[1]
            written = self.model.library.generate(
                **inputs, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False
            )
            said.append(self.model.tokenizer.decode(written[0, length:]))
        return said

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
    """FFmpeg's own program: every frame up to a time, and nothing done with it."""
    command = ["ffmpeg", "-v", "error", "-threads", str(threads), "-t", str(until_seconds), "-i", str(video.path)]
    subprocess.run([*command, "-map", "0:v:0", "-f", "null", "-"], check=True, stdin=subprocess.DEVNULL)


def read_with_qwen_vl_utils(video: Video, until_seconds: float, *, height: int, width: int) -> int:
    """A frame a second up to a time as Qwen's own package reads them. It needs torchvision, which lvqa does not."""
    from qwen_vl_utils import fetch_video

    wanted = {"video": str(video.path), "video_start": 0.0, "video_end": until_seconds, "fps": 1.0}
    size = {"resized_height": height, "resized_width": width, "max_frames": 1 << 20}
    return len(fetch_video({**wanted, **size}))


def read_with_opencv(video: Video, times_seconds: Sequence[float], *, height: int, width: int) -> int:
    """Frames at these ascending times by the usual loop: every frame grabbed, the wanted ones fetched and scaled."""
    capture = cv2.VideoCapture(str(video.path))
    capture.set(cv2.CAP_PROP_N_THREADS, 1)
    rate = capture.get(cv2.CAP_PROP_FPS)
    if not rate > 0:
        raise LvqaError(f"{video.path}: OpenCV can't read it")
    wanted = [round(seconds * rate) for seconds in times_seconds]
    found = frame = 0
    while found < len(wanted) and capture.grab():
        if frame == wanted[found]:
            _, pixels = capture.retrieve()
            cv2.cvtColor(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
            found += 1
        frame += 1
    capture.release()
    return found
