"""Check a model with its own weights on its own device: whole, equal to the library's classes, as the paper finds it.

Each check is a sentence that a stranger can believe, and says whether all is well.
"""

from __future__ import annotations

import hashlib
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lvqa import prompts
from lvqa.diagnostics import bias_of_words, depth_of
from lvqa.embedding import Embedder
from lvqa.records import LvqaError, counted

if TYPE_CHECKING:
    from torch import Tensor

    from lvqa.models.decoder import Decoder
    from lvqa.models.prompt import ClipTokens, Prompt

MIN_COSINE = {"float32": 0.99999}
"""The least cosine with what the library computes, by the type of the weights."""
MIN_COSINE_OF_HALVES = 0.999
LOGIT_MARGIN = {"float32": 1e-3}
"""A token that the library would not have chosen may have a logit so much smaller than the one that it would."""
LOGIT_MARGIN_OF_HALVES = 0.25
NUM_GREEDY_TOKENS = 8
MAX_SPREAD = 100.0
"""A weight may be so many times as large, or as small, as the same weight of the other layers."""
FRAME = (360, 640)
"""The height and width of the frames that are looked at: those of most videos on the web, before scaling."""
NUM_PAIRS = 8
"""A clip of 16 seconds has so many pairs."""


@dataclass(frozen=True, slots=True)
class Check:
    """What a check found."""

    name: str
    message: str
    healthy: bool = True
    essential: bool = True
    """Whether a model that fails it gives wrong results; else its results are worse than the paper's."""


def check_model(model: Decoder) -> Iterator[Check]:
    """Yield what is found of a loaded model, check by check: its files first, its speed last."""
    yield check_files(model)
    weights = check_weights(model)
    yield weights
    yield check_template(model)
    if not weights.healthy:
        return  # what follows would compare numbers that mean nothing
    frames = _frames(model)
    clip = _clip(model, frames)
    yield check_tower(model, frames, clip)
    yield check_states(model, clip)
    yield check_reply(model, clip)
    yield from check_probes(model, clip)
    yield check_memory(model, clip)
    yield check_speed(model, frames, clip)


# --- whole -----------------------------------------------------------------------------------------------------------


def check_files(model: Decoder) -> Check:
    """Compare the files of the weights with the checksums by which the hub's cache names them."""
    from lvqa.models.checkpoint import find_checkpoint, snapshot_folder

    commit = model.revision if re.fullmatch("[0-9a-f]{40}", model.revision) else None  # a folder has none
    folder = snapshot_folder(find_checkpoint(model.name, commit))
    files = sorted(folder.glob("*.safetensors"))
    size = f"{counted(len(files), 'file')} of weights, {sum(path.stat().st_size for path in files) / 1e9:.1f} GB"
    named = [path for path in files if re.fullmatch("[0-9a-f]{64}", path.resolve().name)]
    damaged = [path.name for path in named if _sha256(path) != path.resolve().name]
    if damaged:
        return Check("files", f"{damaged[0]} is not what the hub has under its checksum; download it again", False)
    checked = f"{len(named)} equal their checksums" if named else "nothing says what they must be"
    return Check("files", f"{size}; {checked}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights(model: Decoder) -> Check:
    """Look for weights that are no numbers, are all zero, or are of another size than those of the other layers."""
    from lvqa.models.devices import loaded_weights
    from lvqa.models.quantisation import is_plain

    scales: dict[str, dict[str, float]] = defaultdict(dict)
    num_packed = num_numbers = 0
    for name, weight in loaded_weights(model.library):
        num_numbers += weight.numel()
        if not is_plain(weight):
            num_packed += 1
            continue
        scale = float(weight.float().abs().mean())
        if not np.isfinite(scale) or not bool(weight.isfinite().all()):
            return Check("weights", f"{name} has values that are no numbers; download the checkpoint again", False)
        if scale == 0 and weight.dim() > 1:
            return Check("weights", f"{name} is zero throughout; download the checkpoint again", False)
        if weight.dim() > 1:
            scales[re.sub(r"\.\d+\.", ".*.", name)][name] = scale
    for of_layers in scales.values():
        usual = statistics.median(of_layers.values())
        for name, scale in of_layers.items():
            if not usual / MAX_SPREAD <= scale <= usual * MAX_SPREAD:
                ratio = f"{scale / usual:.2g} times as large as in the other layers"
                return Check("weights", f"{name} is {ratio}; the checkpoint is damaged, or not trained", False)
    packed = f"; {num_packed} tensors are packed, and not looked into" if num_packed else ""
    return Check("weights", f"{num_numbers / 1e9:.2f} billion, all finite, of one size over the layers{packed}")


def check_template(model: Decoder) -> Check:
    """Compare the chat template with the one form that all these families have, and its place for a video."""
    tokenizer, marker = model.tokenizer, "lvqa-content"
    before, _, after = _render(tokenizer, [{"type": "text", "text": marker}]).partition(marker)
    opened, closed = before.rfind("<|im_start|>"), after.find("<|im_end|>")
    has_turns = opened >= 0 and before[opened:].split()[:1] == ["<|im_start|>user"] and closed >= 0
    if not has_turns or not after.rstrip().endswith("<|im_start|>assistant"):
        return Check("template", f"it is not that of {model.model_type}: a turn begins {before[-30:]!r}", False)
    shown_video = _render(tokenizer, [{"type": "video"}, {"type": "text", "text": marker}])
    expected = model.video_in_template
    if marker in shown_video and "'type'" not in shown_video and expected not in shown_video:
        return Check("template", f"it is not that of {model.model_type}: it does not show a video as {expected}", False)
    return Check("template", f"the turns of {model.model_type}, and the reply begins at once")


def _render(tokenizer: Any, content: list[dict[str, str]]) -> str:
    messages = [{"role": "user", "content": content}]
    options = {"add_generation_prompt": True, "enable_thinking": False}
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


# --- equal to the library --------------------------------------------------------------------------------------------


def _frames(model: Decoder) -> np.ndarray:
    """Return (NUM_PAIRS, 2, height, width, 3) uint8, smooth colours that move: a tower knows no noise."""
    height, width = model.frame_size(*FRAME, max_pixels=model.max_pixels)
    rows, cols = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [
        [np.sin(2 * np.pi * (k + 1) * (rows * (k + 1) + cols) + time / 3) for k in range(3)]
        for time in range(2 * NUM_PAIRS)
    ]
    frames = (127.5 + 127.5 * np.array(waves)).astype(np.uint8).transpose(0, 2, 3, 1)
    return frames.reshape(NUM_PAIRS, 2, height, width, 3)


def _clip(model: Decoder, frames: np.ndarray, num_pairs: int = 2) -> ClipTokens:
    from lvqa.models.prompt import ClipTokens

    seconds = tuple((2.0 * i, 2.0 * i + 1) for i in range(num_pairs))
    return ClipTokens(model.encode_pairs(frames[:num_pairs]), *model.token_grid(*frames.shape[2:4]), seconds)


def check_tower(model: Decoder, frames: np.ndarray, clip: ClipTokens) -> Check:
    """Compare visual tokens with those of the library's vision tower."""
    from lvqa.models.reference import library_tower

    expected = library_tower(model, frames[: clip.num_pairs])
    return _compared("frames", "visual tokens", model, clip.tokens.flatten(0, 1), expected)


def check_states(model: Decoder, clip: ClipTokens) -> Check:
    """Compare FreeRet's vectors, of a clip and of a question, with the state that a hook finds in the library."""
    from lvqa.models.reference import library_states, own_attention

    embedder = Embedder(wording=model.prompts)
    both = [embedder.clip_prompt(clip), embedder.query_prompt("What happens after the door is closed?")]
    ours = model.last_hidden_states(both)
    with own_attention(model.library):
        expected = [library_states(model, prompt)["attention"].float() for prompt in both]
    return _compared("vectors", "states before the last MLP", model, ours, _stacked(expected))


def _stacked(rows: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(rows))


def _compared(name: str, what: str, model: Decoder, ours: Tensor, expected: Tensor) -> Check:
    import torch

    cosine = float(torch.cosine_similarity(ours.float(), expected.float(), dim=-1).min())
    least = MIN_COSINE.get(_dtype(model), MIN_COSINE_OF_HALVES)
    message = f"{what} as the library's class computes them: cosine {cosine:.6f}, at least {least} in {_dtype(model)}"
    return Check(name, message if cosine >= least else message.replace(" as", " NOT as", 1), cosine >= least)


def check_reply(model: Decoder, clip: ClipTokens) -> Check:
    """Compare the letter of a multiple choice, and a greedy reply, with the library's."""
    from lvqa.models.reference import library_output, own_attention

    before, after = prompts.rerank("a red car", wording=model.prompts)
    prompt: Prompt = (before, clip, after)
    letters = [prompts.YES_OPTION, prompts.NO_OPTION]
    ids, reply = model.first_tokens(letters), list[int]()
    ours = model.next_token_logits([prompt], letters)[0].tolist()
    model.generate([prompt], max_new_tokens=NUM_GREEDY_TOKENS, on_token=lambda _, token, __: reply.append(token))
    with own_attention(model.library):
        logits = library_output(model, prompt, reply[:-1]).logits[0, -len(reply) :].float()
    theirs = logits[0, ids].tolist()
    margin = LOGIT_MARGIN.get(_dtype(model), LOGIT_MARGIN_OF_HALVES)
    chosen = logits.gather(1, logits.new_tensor(reply).long()[:, None])[:, 0]
    num_equal = int((logits.max(dim=1).values - chosen <= margin).sum())
    is_same = num_equal == len(reply) and abs((ours[0] - ours[1]) - (theirs[0] - theirs[1])) <= margin
    letter = letters[int(theirs[1] > theirs[0])]
    message = f"letter {letter}, and {num_equal} of {len(reply)} greedy tokens are the library's"
    return Check("reply", message, is_same)


def _dtype(model: Decoder) -> str:
    return str(model.dtype).removeprefix("torch.")


# --- as the paper finds models ----------------------------------------------------------------------------------------


def check_probes(model: Decoder, clip: ClipTokens) -> Iterator[Check]:
    """Yield the three findings of FreeRet's authors on which the method rests (Figure 2a, Figure 4)."""
    depth = depth_of(model, [Embedder(wording=model.prompts).clip_prompt(clip)])
    *earlier, last = depth.similarity.mean(axis=0).tolist()
    before = statistics.mean(earlier[-4:])
    turn = f"the last MLP turns the state: cosine {last:.2f}, in the sub-layers before it {before:.2f}"
    yield _probe(turn, "below 0.5 and below those", last < min(0.5, before))
    shares = {bias.labels: bias.probabilities for bias in bias_of_words(model)}
    rules = {("A", "B"): "most of it, within 2 points", ("Right", "Wrong"): "skewed by 10 points or more"}
    for labels, rule in rules.items():
        if labels not in shares:
            yield _probe(f"{' and '.join(labels)} begin with the same token", "two tokens", False)
            continue
        first, second = shares[labels]
        gap = abs(first - second)
        line = f"without context {labels[0]} {100 * first:.1f}%, {labels[1]} {100 * second:.1f}%"
        yield _probe(line, rule, gap < 0.02 and first + second > 0.5 if labels == ("A", "B") else gap >= 0.1)


def _probe(message: str, rule: str, is_good: bool) -> Check:
    verdict = f"as in the paper ({rule})" if is_good else f"NOT as in the paper ({rule})"
    return Check("probe", f"{message}: {verdict}", is_good, essential=False)


# --- what fits --------------------------------------------------------------------------------------------------------


def check_memory(model: Decoder, clip: ClipTokens) -> Check:
    """Say what weights, an hour's visual tokens and a clip's keys and values take, and what is free."""
    from lvqa.models.memory import free_bytes
    from lvqa.models.quantisation import weight_bytes

    gib = 1 << 30
    weights = sum(weight_bytes(weight) for weight in model.library.parameters())
    per_pair = clip.tokens[0].numel() * clip.tokens.element_size()
    hour = 1800 * per_pair
    config = model.library.config.text_config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * clip.tokens.element_size()
    prefix = NUM_PAIRS * clip.rows * clip.cols * per_token
    free = free_bytes(model.device, model.library)
    message = (
        f"weights {weights / gib:.1f} GiB; an hour of video {hour / gib:.2f} GiB of visual tokens; a clip of 16 s "
        f"{prefix / (1 << 20):.0f} MiB of keys and values; {free / gib:.1f} GiB are free on {model.device}, "
        f"of which {model.memory_bytes / gib:.1f} GiB are for what is kept"
    )
    return Check("memory", message, free > hour + 50 * prefix, essential=False)


def check_speed(model: Decoder, frames: np.ndarray, clip: ClipTokens) -> Check:
    """Say how long an hour of video takes to index, and a question on it, from rates that are measured here."""
    embedder = Embedder(wording=model.prompts)
    before, after = prompts.rerank("a red car", wording=model.prompts)
    pairs = _seconds(lambda: model.encode_pairs(frames)) / len(frames)
    size = clip.num_pairs / NUM_PAIRS  # of the clips that were read, in clips of 16 s
    embedded = _seconds(lambda: embedder.clips(model, [clip] * 4)) / 4 / size
    reranked = _seconds(lambda: model.next_token_logits([(before, clip, after)] * 4, ["A", "B"])) / 4 / size
    index = (1800 * pairs + 225 * embedded) / 60
    message = (
        f"{1 / pairs:.1f} pairs and {1 / embedded:.2f} clips a second here: an hour of video takes {index:.1f} minutes "
        f"to index, beside decoding, and a question {50 * reranked:.1f} s to rerank 50 clips"
    )
    return Check("speed", message)


def _seconds(work: Callable[[], Any]) -> float:
    """Return how long a piece of work takes, the second time that it is done."""
    import torch

    for _ in range(2):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    return time.perf_counter() - started


def decoder_of(model: object) -> Decoder:
    """Return a model as the class whose inside is checked; LvqaError for one of another kind."""
    from lvqa.models.decoder import Decoder

    if not isinstance(model, Decoder):
        raise LvqaError(f"a {type(model).__name__} can't be checked")
    return model
