"""The settings: defaults, then a YAML file, then `key=value` overrides. A key that is not known is refused by name.

The annotation of a field says what it allows. Names of plug-ins (`video.decoder`, `rerank.name`, `method`, ...) are
checked by the modules that own them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, overload

from msgspec import Meta

from lvqa.old_settings import RENAMED_SETTINGS, renamed
from lvqa.records import LvqaError
from lvqa.settings_tree import ConfigError, flat, merged, origin_of, parse_override, plain, read_tree, tree_of
from lvqa.subtitles import OFF, SpokenSource
from lvqa.validation import NonNegativeInt, PositiveFloat, PositiveInt, Text, check_fields, convert

Probability = Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")]
DeviceMap = Literal["auto", "balanced", "sequential"] | dict[str, str | int] | None
Settings = TypeVar("Settings", bound="Config")

POOL = 50
"""How many clips go to the reranker by default."""


class Section:
    """A dataclass of settings, whose fields are checked, also where Python code creates it."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(Section):
    """Which model answers, where it runs and how large its frames are."""

    name: Text = "Qwen/Qwen2.5-VL-7B-Instruct"
    """The model is a hub id, a folder, or "tiny"."""
    revision: Text | None = None
    """A hub id is loaded at this commit, tag or branch; null takes its main branch as it is now."""
    device: Text | None = None
    """The device is named as torch names it ("cpu", "cuda:1"); null takes the best there is."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """The type of the weights; null takes bfloat16 where the device is good at it."""
    device_map: DeviceMap = field(default=None, hash=False)
    """Share the model out over devices, as accelerate does it, or by names of modules; null: it is on one device."""
    quantize: Literal["int8", "fp8", "nf4"] | None = None
    """Pack the language model's weights while they are loaded; null leaves them as the checkpoint has them."""
    max_batch_tokens: PositiveInt | None = None
    """A batch has at most so many tokens; null takes a number that suits the device."""
    memory_mib: NonNegativeInt | None = None
    """Bound on what is kept in the device's memory of all open videos: visual tokens, and what the model has read of
    clips and of answers' frames. null takes what is free there, less what a batch needs; on a CPU a quarter."""
    compile: bool = False
    """Have the model's layers compiled, which takes half a minute; for long work on a GPU."""
    max_pixels: PositiveInt | None = None
    """A frame has at most so many pixels before the model sees it; null takes the default of the model's family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoConfig(Section):
    """How a file becomes a grid of frames and clips."""

    decoder: Text = "pyav"
    """A name in video.DECODERS."""
    sampling: Text = "exact"
    """A name in video.SAMPLINGS: frames at an even step, or the video's own key frames, which are quick to skim."""
    frames_per_second: PositiveFloat = 1.0
    """The grid has the frames on screen at so many times a second, each once; of the key frames so many at most."""
    clip_seconds: PositiveFloat = 16.0
    """A clip is so long; the last one may be shorter, and those of a video with few pictures are longer."""
    more_clip_seconds: tuple[PositiveFloat, ...] = ()
    """Cut clips of these lengths too, from the same visual tokens, say [8, 32]. Each length is ranked for itself, then
    all are ranked together; of clips that overlap only the best stays."""
    scene_cuts: bool = False
    """Cut clips at scene changes too."""
    threads: PositiveInt | None = None
    """So many threads decode a video together; null takes OMP_NUM_THREADS, or one for each core of this
    process, but no more than hold 1 GiB of frames ahead."""
    stall_seconds: PositiveFloat = 30.0
    """Give up a decoder that gives no frame and reads nothing for so long."""
    subtitles: Text | bool = "off"
    """What is said is searched, and shown with the frames: `auto` takes the file of subtitles beside the video, or the
    track in it, or with the extra `speech` a transcript; else a file (.srt, .vtt), or `off`."""
    speech_model: Text = "base"
    """With the extra `speech`, this model of faster-whisper (a name or a folder) writes down what is said."""

    @property
    def clip_lengths(self) -> tuple[float, ...]:
        """All lengths of clips in seconds, that of `clip_seconds` first."""
        return self.clip_seconds, *self.more_clip_seconds

    @property
    def spoken(self) -> SpokenSource:
        """Where the lines that are said come from."""
        is_off = self.subtitles in ("off", False)  # YAML takes the word for false
        source = "auto" if self.subtitles is True else str(self.subtitles)
        return OFF if is_off else SpokenSource(source, self.speech_model)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingConfig(Section):
    """How clips and questions become vectors."""

    state: Literal["attention", "mlp", "mlp-1", "mlp-2"] = "attention"
    """Which hidden state is the vector: after the last attention, the last MLP, or the MLP one or two layers before."""
    final_norm: bool = False
    """Apply the model's final norm to the state."""
    prompt: Literal["freeret", "e5v"] = "freeret"
    """Which text asks for the vector."""
    task: bool = True
    """Put the first constraint into the freeret prompt: the task."""
    semantics: bool = True
    """Put the second constraint into the freeret prompt: semantics."""
    noise: bool = True
    """Put the third constraint into the freeret prompt: noise."""
    centre: bool = False
    """Subtract the video's mean vector."""
    with_options: bool = False
    """Embed the question with its options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankConfig(Section):
    """How the best candidates are reranked."""

    name: Text = "mcq"
    """A name in rerank.RERANKERS, or a Python file with a reranker of your own."""
    pool: NonNegativeInt | None = POOL
    """So many clips are reranked, the best first; 0 keeps the embedding's order, null reranks the whole video."""
    layout: Literal["question_first", "clip_first"] | None = None
    """What the model reads first; null: the question, as in the paper, unless the model's own config.json says else."""
    labels: Text = "letters"
    """With which words mcq lets the model say whether a clip matches: a name in prompts.LABELS."""
    both_orders: bool = False
    """Let mcq take the mean over both orders of the options."""
    probability: Text = "options"
    """Let mcq take the softmax over the two labels ("options"), or over the whole "vocabulary"."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """The reranker's own options, {ratio: 0.3} for retllm. Those of a file, of -s and of an arm add up."""

    @property
    def is_on(self) -> bool:
        """Whether any clip is reranked."""
        return self.pool != 0 and self.name != "none"

    @property
    def num_shown(self) -> int | None:
        """How many of the best clips are evidence, whether they were reranked or not."""
        return POOL if self.pool == 0 else self.pool


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig(Section):
    """Which frames the model answers from."""

    frames: PositiveInt = 16
    """The budget of an answer, in frames."""
    frames_per_clip: Annotated[int, Meta(ge=2, multiple_of=2, description="an even number, 2 or more")] | None = None
    """Method freeret takes so many frames from a clip, whole pairs; null takes a quarter of the budget, 4 at least."""
    uniform: Literal["midpoint", "linspace", "interior"] = "midpoint"
    """How method uniform spaces its frames."""
    read_times: bool = True
    """Tell a method that uses it what the question says about time ("at 21:40"), which is then in the answer too."""
    smooth_seconds: PositiveFloat | None = None
    """Smooth the clips' scores in time, by a Gaussian of this standard deviation; null leaves them as they are."""
    gate: bool = False
    """Ask the model whether the question is about one moment, an order of events or the whole video, for a method that
    uses it."""
    scores: Path | None = None
    """A file of scores stands in for the model's, see selection.files.read_scores; null takes the model's."""
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    """The method's own options, {power: 2.5} for bolt. Those of a file, of -s and of an arm add up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerConfig(Section):
    """How the model answers from the selected frames."""

    time_encoding: Literal["text", "mrope", "index"] | None = None
    """How the model learns the time of a frame; null takes text, unless the model writes true seconds by itself."""
    packing: Literal["sampled", "aligned"] | None = None
    """Which two frames share a temporal patch of Qwen's vision tower: those chosen one after the other, as in Qwen's
    own processor, or neighbours in the video alone, where any other frame fills a patch; null: the first, unless the
    model's own config.json says else."""
    mode: Literal["logits", "text", "likelihood"] | None = None
    """Multiple choice: the letter with the largest logit, the letter that the generated text names, or the option
    likeliest as the answer to the bare question; null: the first, unless the model's own config.json says else."""
    max_new_tokens: PositiveInt = 64
    """A generated answer has at most so many tokens; a protocol of a benchmark has a bound of its own."""
    max_object_tokens: PositiveInt = 512
    """An answer that must fit a schema has at most so many tokens; one that needs more is refused: half an object is
    none."""
    generation: Literal["greedy", "checkpoint"] = "greedy"
    """How the tokens of a generated answer are chosen: the likeliest, or by the model's generation_config.json, its
    penalties of repetition and, with `seed`, its sampling. A protocol of a benchmark is always greedy."""
    look_again: Probability | None = None
    """Answer from some of the frames first; while the likeliest option has a smaller probability, again with as many
    others beside them, until the budget is spent. Null shows all frames at once."""
    first_look: PositiveInt | None = None
    """The first look has so many frames, at most the budget; null: half of the budget."""
    next_look: Literal["other_clips", "larger_budget"] = "other_clips"
    """What the next look adds: frames of clips that were not shown, or what the method adds to twice the budget."""
    pool_looks: bool = False
    """Answer by the mean of the probabilities in all looks so far, in place of those in the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig(Section):
    """Where indexes lie, and how much is kept there."""

    folder: Path | None = None
    """The store lies in this folder, here or at s3:// or gs://; null takes $LVQA_HOME or the user's cache folder."""
    disk_mib: NonNegativeInt | None = None
    """Bound on the visual tokens of all videos on the disk, for the next process; the least recently used go first.
    null takes a quarter of what is free there, 0 keeps none."""
    copies_mib: PositiveInt = 20480
    """Bound on the local copies of all files that lie elsewhere (s3, gs, https), but for those that are in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(Section):
    """All settings. Only cli, evaluation and pipeline see it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    rerank: RerankConfig = field(default_factory=RerankConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    prompts: Literal["paper", "lvqa"] | None = None
    """The words of embedding and reranking: FreeRet's to the letter, or the embedded model's; null: the model's own."""
    method: Text = "freeret"
    """How frames are chosen: a name in selection.SELECTORS, or a Python file with a selector of your own."""
    seed: NonNegativeInt = 0
    """The seed of all random generators."""

    @property
    def retrieval(self) -> Config:
        """The settings that the ranking of clips depends on; those of what follows it are the defaults."""
        names = ("model", "video", "embedding", "rerank", "store", "prompts")
        return Config(**{name: getattr(self, name) for name in names})


@overload
def load_config(path: Path | None = None, overrides: Sequence[str] = (), *, accept_old: bool = False) -> Config: ...
@overload
def load_config(
    path: Path | None = None, overrides: Sequence[str] = (), *, kind: Callable[[], Settings], accept_old: bool = False
) -> Settings: ...
def load_config(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    kind: Callable[[], Any] = Config,
    accept_old: bool = False,
) -> Any:
    """Return the defaults, changed by the file, then by each override ("video.clip_seconds=8") in turn.

    Args:
        path: A YAML file.
        overrides: Each is a dotted key, an equals sign and a value in YAML.
        kind: Makes the defaults: Config, or a dataclass that adds keys to it; every field of it has a default.
        accept_old: Whether the file may have keys of lvqa 0.1, as a run folder of that time has.

    Raises:
        ConfigError: The file can't be read, or a setting is not known or not allowed.
    """
    config = kind()
    if path is not None:
        tree = read_tree(path)
        config = _updated(config, renamed(tree) if accept_old else tree, origin=str(path))
    return with_overrides(config, overrides)


def with_overrides(config: Settings, overrides: Sequence[str]) -> Settings:
    """Return the configuration, changed by each override ("video.clip_seconds=8") in turn; ConfigError as above."""
    for override in overrides:
        config = _updated(config, parse_override(override), origin=origin_of(override))
    return config


def with_settings(config: Settings, settings: Mapping[str, object], *, where: str) -> Settings:
    """Return the configuration with these settings, {"video.clip_seconds": 8}; a refusal says `where` they stood."""
    for key, value in settings.items():
        config = _updated(config, tree_of(key, value), origin=where)
    return config


def with_call(config: Config, *, frames: int | None = None, method: str | None = None) -> Config:
    """Return the configuration with what one question is asked with; None leaves a setting as it is."""
    if frames is not None:
        config = dataclasses.replace(config, selection=dataclasses.replace(config.selection, frames=frames))
    return config if method is None else dataclasses.replace(config, method=method)


def without_reranking(config: Config) -> Config:
    """Return the configuration that ranks by embedding alone."""
    return dataclasses.replace(config, rerank=dataclasses.replace(config.rerank, pool=0))


def to_dict(config: Config) -> dict[str, Any]:
    """Return the settings as plain values, complete: what load_config reads back to the same configuration."""
    tree: dict[str, Any] = plain(dataclasses.asdict(config))
    return tree


def to_yaml(config: Config) -> str:
    """Return the text of a YAML file that load_config reads back to the same configuration."""
    import yaml

    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def _updated(config: Settings, changes: object, *, origin: str) -> Settings:
    """Return the configuration with the changes, a tree of plain values, merged into it."""
    try:
        for key in flat(changes) if isinstance(changes, dict) else ():
            for old, new in RENAMED_SETTINGS.items():
                if key == old or key.startswith(f"{old}."):
                    raise LvqaError(f"{old} is called {new} since 0.2 ({origin})")
        return convert(merged(dataclasses.asdict(config), changes), type(config), origin=origin)
    except RecursionError:
        raise ConfigError(f"the settings must be nested less deeply ({origin})") from None
    except LvqaError as error:
        raise ConfigError(str(error)) from None
