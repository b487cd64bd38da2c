"""How the next token of a reply is chosen: the likeliest, or as a checkpoint's own generation settings say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lvqa.records import LvqaError

if TYPE_CHECKING:
    from torch import Tensor

Processor = Callable[["Tensor", "Tensor"], "Tensor"]
"""Gets the tokens before, prompt and reply, (1, sequence), and the next one's scores, (1, vocabulary) float32. Returns
the scores, changed; by the library's contract of a logits processor."""

PENALTIES = ("repetition_penalty", "no_repeat_ngram_size")
SAMPLING = ("temperature", "top_k", "top_p", "min_p")
BESIDE = (
    *("do_sample", "max_length", "max_new_tokens", "use_cache", "cache_implementation", "transformers_version"),
    *("output_attentions", "output_hidden_states", "return_dict_in_generate", "_from_model_config"),
)
"""What else generation_config.json may say: what chooses no token, and bounds in whose place lvqa has its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How the next token is chosen. The default is the likeliest one; None leaves a step out.

    The fields are those of generation_config.json, and do what they do in the library.
    """

    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    do_sample: bool = False
    """Whether a token is drawn by its probability, with the four fields below."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int = 0
    """What each reply's own random generator begins with, so that no reply depends on others."""

    @classmethod
    def of_checkpoint(cls, settings: dict[str, Any], *, model: str, seed: int) -> Decoding:
        """Return what generation_config.json says.

        Args:
            settings: What it says other than the library's defaults.
            model: The model's name, for the message.
            seed: The seed of what is drawn.

        Raises:
            LvqaError: It says something that is not followed here, such as num_beams.
        """
        known = (*PENALTIES, *SAMPLING, *BESIDE)
        strange = [name for name in settings if name not in known and not name.endswith("_token_id")]
        if strange:
            value = settings[strange[0]]
            raise LvqaError(
                f"generation_config.json of model {model!r} has {strange[0]}: {value}, which lvqa does not follow; "
                f"use answer.generation=greedy, or a file with no more than {', '.join((*PENALTIES, *SAMPLING))}"
            )
        is_sampled = bool(settings.get("do_sample"))
        names = (*PENALTIES, *SAMPLING) if is_sampled else PENALTIES
        return cls(do_sample=is_sampled, seed=seed if is_sampled else 0, **{name: settings.get(name) for name in names})

    def processors(self) -> list[Processor]:
        """Return what changes the scores of one reply, in the library's order; with them the largest is chosen."""
        from transformers import generation

        processors: list[Processor] = []
        for name, class_name in _CLASSES.items():
            value = getattr(self, name)
            if value not in (None, _NEUTRAL[name]):
                processors.append(getattr(generation, class_name)(value))
        return [*processors, Noise(self.seed)] if self.do_sample else processors


_CLASSES = {
    "repetition_penalty": "RepetitionPenaltyLogitsProcessor",
    "no_repeat_ngram_size": "NoRepeatNGramLogitsProcessor",
    "temperature": "TemperatureLogitsWarper",
    "top_k": "TopKLogitsWarper",
    "top_p": "TopPLogitsWarper",
    "min_p": "MinPLogitsWarper",
}
"""A field -> the library's class that does it, in the library's order."""
_NEUTRAL = {"repetition_penalty": 1, "no_repeat_ngram_size": 0, "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}
"""A field -> the value that changes nothing, which some of these classes refuse."""

GREEDY = Decoding()
"""The likeliest token."""


class Noise:
    """Adds noise to scores so that the largest sum is a draw by their softmax (the Gumbel-max trick)."""

    def __init__(self, seed: int) -> None:
        import torch

        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        """Return scores with the next noise, which is drawn on the CPU: it is the same on every device."""
        import torch

        waits = torch.empty(scores.shape).exponential_(generator=self._generator)
        return scores - waits.log().to(scores.device)
