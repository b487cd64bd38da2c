"""The settings: defaults, then a YAML file, then `key=value` overrides. A key that is not known is refused by name.

Names of plug-ins (`video.decoder`, `rerank.name`, `method`, ...) are checked by the rooms that own them.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from lvqa.records import LvqaError
from lvqa.validation import in_yaml, require

Section = TypeVar("Section")
Settings = TypeVar("Settings", bound="Config")

POOL = 50
"""Clips that go to the reranker by default."""


class ConfigError(LvqaError):
    """A setting that is not known or not allowed; names the key, the value, what is allowed and where it stood."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model, where and how large it sees."""

    name: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """A hub id, a folder, or "tiny"."""
    device: str | None = None
    """As torch names it ("cpu", "cuda:1"); null: the best there is."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """null: bfloat16 where the device is good at it."""
    compile: bool = False
    """Have the model's layers compiled, which takes half a minute; for long work on a GPU."""
    max_pixels: int | None = None
    """Most pixels of a frame as shown to the model; null: the default of the model's family."""

    def __post_init__(self) -> None:
        require(self.max_pixels is None or self.max_pixels >= 1, "max_pixels", self.max_pixels, "1 or more, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoConfig:
    """How a file becomes a grid of frames and clips."""

    decoder: str = "pyav"
    """A name in video.DECODERS."""
    sampling: str = "exact"
    """A name in video.SAMPLINGS: frames at an even step, or the film's own key frames, which are quick to skim."""
    frames_per_second: float = 1.0
    """Step of the grid; of the key frames, how many at most."""
    clip_seconds: float = 16.0
    """Length of a clip; the last one may be shorter."""
    scene_cuts: bool = False
    """Cut clips at scene changes too."""
    threads: int | None = None
    """How many decode a film together; null: as many as OMP_NUM_THREADS says, or as this process has cores."""
    stall_seconds: float = 30.0
    """A decoder that is silent for so long is given up."""

    def __post_init__(self) -> None:
        for name in ("frames_per_second", "clip_seconds", "stall_seconds"):
            require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingConfig:
    """How clips and questions become vectors."""

    state: Literal["attention", "mlp", "mlp-1", "mlp-2"] = "attention"
    """Which hidden state is the vector: after the last attention, the last MLP, or the MLP one or two layers before."""
    final_norm: bool = False
    """Apply the model's final norm to it."""
    prompt: Literal["freeret", "e5v"] = "freeret"
    """The text that asks for the vector."""
    task: bool = True
    """The freeret prompt's first constraint: the task."""
    semantics: bool = True
    """Its second: semantics."""
    noise: bool = True
    """Its third: noise."""
    centre: bool = False
    """Subtract the video's mean vector."""
    with_options: bool = False
    """Embed the question with its options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankConfig:
    """How the best candidates are looked at again."""

    name: str = "mcq"
    """A name in rerank.RERANKERS, or a Python file with a reranker of your own."""
    pool: int | None = POOL
    """Clips that are looked at, best first; 0: none, the embedding's order stays; null: the whole video."""
    layout: Literal["question_first", "clip_first"] | None = None
    """What the model reads first; null: the question, as in the paper, unless the model's own config.json says else."""
    memory_mib: int = 4096
    """Bound on what the model has read of a video's clips, kept for the next question; with clip_first only."""
    labels: str = "letters"
    """How mcq has the model say whether a clip matches, as prompts.LABELS names it."""
    both_orders: bool = False
    """mcq: the mean over both orders of the options."""
    probability: str = "options"
    """mcq: softmax over the two labels, or over the whole "vocabulary"."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """The reranker's own, {ratio: 0.3} for retllm. Those of a file, of -s and of an arm add up."""

    def __post_init__(self) -> None:
        require(self.pool is None or self.pool >= 0, "pool", self.pool, "0 or more, or null")
        require(self.memory_mib >= 0, "memory_mib", self.memory_mib, "0 or more")

    @property
    def num_shown(self) -> int | None:
        """How many of the best clips are shown as evidence, whether they were looked at or not."""
        return POOL if self.pool == 0 else self.pool


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """Which frames are shown."""

    frames: int = 16
    """Budget of an answer."""
    frames_per_clip: int | None = None
    """Frames that method freeret takes from a clip, whole pairs; null: a quarter of the budget, 4 at least."""
    uniform: Literal["midpoint", "linspace", "interior"] = "midpoint"
    """How method uniform spaces its frames."""
    scores: Path | None = None
    """A file of scores, which stand in for the model's: see selection.files.read_scores; null: the model's."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """The method's own, {power: 2.5} for bolt. Those of a file, of -s and of an arm add up."""

    def __post_init__(self) -> None:
        require(self.frames >= 1, "frames", self.frames, "1 or more")
        even = self.frames_per_clip is None or (self.frames_per_clip >= 2 and self.frames_per_clip % 2 == 0)
        require(even, "frames_per_clip", self.frames_per_clip, "an even number, 2 or more, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerConfig:
    """How the chosen frames are shown and answered from."""

    time_encoding: Literal["text", "mrope", "index"] | None = None
    """How the model is told the time of a frame; null: text, but for a model that writes true seconds by itself."""
    mode: Literal["logits", "text", "likelihood"] | None = None
    """Multiple choice: the letter with the largest logit, the letter that the generated text names, or the option
    likeliest as the answer to the bare question; null: the first, unless the model's own config.json says else."""
    max_new_tokens: int = 64
    """Longest generated answer."""

    def __post_init__(self) -> None:
        require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where indexes lie, and how much is held in memory."""

    folder: Path | None = None
    """null: $LVQA_HOME or the user's cache folder."""
    memory_mib: int = 2048
    """Bound on the visual tokens held for a video, in the memory of the model's device."""
    disk_mib: int = 128
    """Bound on a file of a video's visual tokens, for the next process; one that would be larger is not written."""

    def __post_init__(self) -> None:
        require(self.memory_mib >= 1, "memory_mib", self.memory_mib, "1 or more")
        require(self.disk_mib >= 0, "disk_mib", self.disk_mib, "0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings. Only cli, evaluate and pipeline see it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    rerank: RerankConfig = field(default_factory=RerankConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    method: str = "freeret"
    """How frames are chosen: a name in selection.SELECTORS, or a Python file with a selector of your own."""
    seed: int = 0
    """For all that draws lots."""

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "0 or more")

    @property
    def retrieval(self) -> Config:
        """The settings that the ranking of clips depends on; those of what follows it are the defaults."""
        return Config(
            model=self.model, video=self.video, embedding=self.embedding, rerank=self.rerank, store=self.store
        )


@overload
def load_config(path: Path | None = None, overrides: Sequence[str] = ()) -> Config: ...
@overload
def load_config(path: Path | None = None, overrides: Sequence[str] = (), *, kind: type[Settings]) -> Settings: ...
def load_config(path: Path | None = None, overrides: Sequence[str] = (), *, kind: type[Any] = Config) -> Any:
    """The defaults, changed by the file, then by each override ("video.clip_seconds=8") in turn.

    `kind` is Config, or a dataclass that adds keys to it; every field of it has a default.
    """
    config = kind()
    if path is not None:
        config = _updated(config, _read(path), where=str(path))
    for override in overrides:
        config = _updated(config, _parse_override(override), where=_origin(override))
    return config


def with_settings(config: Settings, settings: Mapping[str, object], *, where: str) -> Settings:
    """The same but for these settings, {"video.clip_seconds": 8}; a refusal says `where` they stood."""
    for key, value in settings.items():
        config = _updated(config, _tree(key, value), where=where)
    return config


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as plain values, complete: what load_config reads back to the same configuration."""
    tree: dict[str, Any] = _plain(dataclasses.asdict(config))
    return tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones: {"a": {"b": 1}} -> {"a.b": 1}. A list is one value."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def to_yaml(config: Config) -> str:
    """The text of a YAML file that load_config reads back to the same configuration."""
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """Paths as text and tuples as lists, however deep."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _read(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read the configuration {path}: it is not UTF-8 text") from error
    tree = _parse_yaml(text, where=str(path))
    return {} if tree is None else tree


def _parse_override(override: str) -> object:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"an override is written key=value (say selection.frames=32), got {in_yaml(override)}")
    return _tree(key.strip(), _parse_yaml(text, where=_origin(override)))


def _tree(key: str, value: object) -> object:
    """A dotted key as nested mappings: "a.b", 1 -> {"a": {"b": 1}}."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _origin(override: str) -> str:
    text = " ".join(override.split())
    return f"-s {text if len(text) <= 80 else text[:77] + '...'}"


def _parse_yaml(text: str, *, where: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        # The last five: pyyaml lets them through for values like 2026-99-99 or "!!int ''", and for deep nesting.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{where} is not valid YAML: {reason}") from error


def _updated(section: Section, values: object, *, where: str, prefix: str = "") -> Section:
    """A copy of one dataclass of the tree with the given values; `prefix` is "video." inside video."""
    if not isinstance(values, dict):
        name = prefix.rstrip(".") or "a configuration"
        raise ConfigError(f"{name} must be a mapping of keys to values, got {in_yaml(values)} ({where})")
    hints = get_type_hints(type(section))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            known = ", ".join(prefix + name for name in hints)
            raise ConfigError(f"unknown key {in_yaml(f'{prefix}{key}')} ({where}); known: {known}")
        changes[key] = _converted(value, hints[key], key=f"{prefix}{key}", where=where, current=getattr(section, key))
    try:
        return dataclasses.replace(section, **changes)  # type: ignore[type-var]
    except LvqaError as error:
        raise ConfigError(f"{prefix}{error} ({where})") from None


def _converted(value: object, hint: Any, *, key: str, where: str, current: object = None) -> object:
    """The value as the field's type holds it. A mapping of keys changes `current`; None: the defaults of the type."""
    if get_origin(hint) in (Union, types.UnionType):
        if value is None:
            return None
        inner = next(part for part in get_args(hint) if part is not type(None))
    else:
        inner = hint
    if dataclasses.is_dataclass(inner):
        made: Any = inner
        return _updated(made() if current is None else current, value, where=where, prefix=f"{key}.")
    if get_origin(inner) is tuple and isinstance(value, list):
        item, _ = get_args(inner)
        return tuple(_converted(part, item, key=f"{key}[{place}]", where=where) for place, part in enumerate(value))
    try:
        single = _single(value, inner)
    except ValueError:
        raise ConfigError(f"{key} must be {_allowed(hint)}, got {in_yaml(value)} ({where})") from None
    return {**current, **single} if isinstance(single, dict) and isinstance(current, dict) else single


def _single(value: object, hint: Any) -> object:
    """A value without keys of ours, or ValueError. A bool is no int; an int is a float."""
    if get_origin(hint) is Literal and isinstance(value, str) and value in get_args(hint):
        return value
    if get_origin(hint) is dict and isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return dict(value)
    if hint is float and type(value) in (int, float) and abs(value) < math.inf:  # type: ignore[arg-type]
        return _finite(value)  # type: ignore[arg-type]
    if hint is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(value).expanduser()
    if hint in (bool, int, str) and type(value) is hint and value != "":
        return value
    raise ValueError


def _finite(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError from None


_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", Path: "a path"}


def _allowed(hint: Any) -> str:
    kind = get_origin(hint)
    if kind in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else _allowed(part) for part in get_args(hint))
    if kind is tuple:
        item = get_args(hint)[0]
        return f"a list, each item {'a mapping' if dataclasses.is_dataclass(item) else _allowed(item)}"
    if kind is dict:
        return "a mapping of keys to values"
    return f"one of {', '.join(get_args(hint))}" if kind is Literal else _WORDS[hint]
