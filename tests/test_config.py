import dataclasses
import re
from pathlib import Path

import pytest

from lvqa.config import Config, SelectionConfig, load_config, to_dict, to_yaml
from lvqa.records import LvqaError
from lvqa.settings_tree import ConfigError


def refusal(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 700
    return message


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_the_design():
    assert load_config(None, []) == Config()
    assert to_dict(Config()) == {
        "model": {
            "name": "Qwen/Qwen2.5-VL-7B-Instruct",
            "revision": None,
            "device": None,
            "dtype": None,
            "device_map": None,
            "quantize": None,
            "max_batch_tokens": None,
            "memory_mib": None,
            "compile": False,
            "max_pixels": None,
        },
        "video": {
            "decoder": "pyav",
            "sampling": "exact",
            "frames_per_second": 1.0,
            "clip_seconds": 16.0,
            "more_clip_seconds": [],
            "scene_cuts": False,
            "threads": None,
            "stall_seconds": 30.0,
            "subtitles": "off",
            "speech_model": "base",
        },
        "embedding": {
            "state": "attention",
            "final_norm": False,
            "prompt": "freeret",
            "task": True,
            "semantics": True,
            "noise": True,
            "centre": False,
            "with_options": False,
        },
        "rerank": {
            "name": "mcq",
            "pool": 50,
            "layout": None,
            "labels": "letters",
            "both_orders": False,
            "probability": "options",
            "options": {},
        },
        "selection": {
            "frames": 16,
            "frames_per_clip": None,
            "uniform": "midpoint",
            "read_times": True,
            "smooth_seconds": None,
            "gate": False,
            "scores": None,
            "options": {},
        },
        "answer": {
            **{"time_encoding": None, "packing": None, "mode": None, "generation": "greedy"},
            **{"max_new_tokens": 64, "max_object_tokens": 512},
            **{"look_again": None, "first_look": None},
            **{"next_look": "other_clips", "pool_looks": False},
        },
        "store": {"folder": None, "disk_mib": None, "copies_mib": 20480},
        "prompts": None,
        "method": "freeret",
        "seed": 0,
    }


def test_a_file_changes_the_defaults_and_overrides_change_the_file(tmp_path):
    path = written(tmp_path, "video: {clip_seconds: 8, scene_cuts: true}\nselection: {frames: 32}\nmethod: topk\n")
    config = load_config(path, ["selection.frames=64", "model.name=tiny", "selection.frames=48", "store.folder=~/x"])
    assert config.video.clip_seconds == 8.0 and type(config.video.clip_seconds) is float
    assert config.video.scene_cuts and config.video.decoder == "pyav"
    assert (config.selection.frames, config.model.name, config.method) == (48, "tiny", "topk")
    assert config.store.folder == Path("~/x").expanduser()


def test_options_of_a_method_add_up(tmp_path):
    path = written(tmp_path, "method: aks\nselection: {options: {depth: 3, stand_out: 0.5}}\n")
    config = load_config(path, ["selection.options.stand_out=0.4"])
    assert config.selection.options == {"depth": 3, "stand_out": 0.4}
    assert hash(config) == hash(load_config(path)) and config != load_config(path)
    assert load_config(None, ["selection.options.depth=3"]).selection.options == {"depth": 3}
    assert load_config().selection.options == {}


def test_override_values_are_yaml():
    config = load_config(None, ["model.max_pixels=null", "video={clip_seconds: 4, scene_cuts: yes}", " seed = 7"])
    assert config.model.max_pixels is None and config.video.clip_seconds == 4 and config.seed == 7
    assert config.video.scene_cuts


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}\n", "\ufeffseed: 0\n"])
def test_a_file_without_keys_is_the_defaults(tmp_path, text):
    assert load_config(written(tmp_path, text), []) == Config()


def test_written_out_it_reads_back_the_same(tmp_path):
    config = load_config(None, ["store.folder=/data/ä b", "model.dtype=bfloat16", "video.stall_seconds=0.1"])
    assert load_config(written(tmp_path, to_yaml(config)), []) == config


def test_it_is_frozen_and_every_field_has_a_docstring_line():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1  # type: ignore[misc]
    source = Path(load_config.__code__.co_filename).read_text(encoding="utf-8")
    tree = to_dict(Config())
    leaves = [key for section in tree.values() if isinstance(section, dict) for key in section] + ["method", "seed"]
    for leaf in leaves:
        assert re.search(rf'^    {leaf}: .*\n    """.+', source, re.MULTILINE), leaf


@pytest.mark.parametrize("key", ["video.fps", "fps", "videos.decoder", "video.decoder.name", "seed.x", "video.", "1"])
def test_an_unknown_key_is_named_with_the_known_ones(key):
    message = refusal(f"{key}=1")
    assert f"-s {key}=1" in message
    if key == "video.fps":
        assert "unknown key 'video.fps'" in message and "video.frames_per_second" in message
    if key == "fps":
        assert "unknown key 'fps'" in message and "selection" in message and "method" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("video.grid=exact", "video.grid is called video.sampling since 0.2 (-s video.grid=exact)"),
        ("answer={read: text}", "answer.read is called answer.mode since 0.2 (-s answer={read: text})"),
        ("answer.read.x=1", "answer.read is called answer.mode since 0.2 (-s answer.read.x=1)"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(override, message, tmp_path):
    assert refusal(override) == message
    path = written(tmp_path, "seed: 1\nvideo: {decoder: decord, grid: exact}\n")
    assert refusal(path=path) == f"video.grid is called video.sampling since 0.2 ({path})"


def test_old_keys_are_read_where_a_caller_accepts_them(tmp_path):
    path = written(tmp_path, "video: {decoder: decord, grid: keys}\nanswer: {read: text}\n")
    expected = load_config(None, ["video.decoder=decord", "video.sampling=keys", "answer.mode=text"])
    assert load_config(path, accept_old=True) == expected
    with pytest.raises(ConfigError, match=r"video\.grid is called video\.sampling"):
        load_config(path, ["video.grid=exact"], accept_old=True)


def test_an_unknown_key_in_a_file_names_the_file(tmp_path):
    path = written(tmp_path, "selection: {frames: 8, budget: 3}\n")
    message = refusal(path=path)
    assert "'selection.budget'" in message and str(path) in message and "selection.frames_per_clip" in message


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("selection.frames=true", "a whole number, 1 or more, got true"),
        ("selection.frames=16.0", "a whole number"),
        ("selection.frames=sixteen", "a whole number"),
        ("selection.frames=", "a whole number"),
        ("selection.frames=0", "1 or more"),
        ("selection.frames=-3", "1 or more"),
        ("selection.frames_per_clip=3", "an even number"),
        ("selection.frames_per_clip=0", "an even number"),
        ("selection.uniform=middle", "one of interior, linspace, midpoint, got 'middle'"),
        ("selection.options=3", "a mapping of keys to values"),
        ("selection.options={1: 2}", "a mapping of keys to values"),
        ("answer.time_encoding=off", "one of index, mrope, text, or null, got false"),
        ("answer.max_new_tokens=0", "1 or more"),
        ("embedding.prompt=best", "e5v, freeret"),
        ("embedding.task=1", "true or false"),
        ("embedding.task=[true]", "true or false"),
        ("video.frames_per_second=.nan", "a finite number"),
        ("video.frames_per_second=.inf", "a finite number"),
        ("video.frames_per_second=-.inf", "a finite number"),
        ("video.frames_per_second=1" + "0" * 400, "a finite number"),
        ("video.frames_per_second=false", "a finite number"),
        ("video.frames_per_second=0", "more than 0"),
        ("video.clip_seconds=-1", "more than 0"),
        ("video.stall_seconds=0.0", "more than 0"),
        ("video.threads=0", "1 or more, or null"),
        ("video.threads=1.5", "a whole number, 1 or more, or null"),
        ("video.decoder=5", "text"),
        ("video.decoder=", "text"),
        ("video=3", "a mapping"),
        ("video=", "a mapping"),
        ("model.name=", "text"),
        ("model.dtype=int8", "bfloat16, float16, float32, or null"),
        ("model.max_pixels=0", "1 or more"),
        ("model.max_pixels=big", "a whole number, 1 or more, or null"),
        ("rerank.pool=-1", "0 or more, or null"),
        ("rerank.options=[1]", "a mapping"),
        ("model.memory_mib=-1", "0 or more, or null"),
        ("model.max_batch_tokens=0", "1 or more, or null"),
        ("store.folder=3", "a path, or null"),
        ("method={}", "text"),
        ("seed=-1", "0 or more"),
    ],
)
def test_a_wrong_value_is_refused(override, allowed):
    message = refusal(override)
    assert override.partition("=")[0] in message and allowed in message and f"-s {override}"[:60] in message


def test_the_override_at_fault_is_the_one_named():
    message = refusal("selection.frames=8", "seed=-1", "selection.frames=9")
    assert "(-s seed=-1)" in message


def test_a_section_made_in_python_is_checked_too():
    with pytest.raises(LvqaError, match="frames must be a whole number, 1 or more, got 0"):
        SelectionConfig(frames=0)


def test_plug_in_names_are_left_to_their_modules():
    assert load_config(None, ["method=mine", "rerank.name=mine", "video.decoder=mine"]).method == "mine"


@pytest.mark.parametrize("override", ["selection.frames", "=3", "", " =3"])
def test_an_override_needs_a_key_and_an_equals_sign(override):
    assert "key=value" in refusal(override)


MALFORMED = ["video: [", "a: b: c", "\t- x", "seed: 2026-99-99", "seed: !!int ''", "seed: !!bool x", "[" * 5000, "!x y"]


@pytest.mark.slow
@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_yaml_is_one_line_with_its_origin(tmp_path, text):
    path = written(tmp_path, text)
    assert str(path) in refusal(path=path)


@pytest.mark.parametrize("value", ["[", "2026-99-99", "!!python/object:os.system {}", "{a: 1\n b: 2", "x\n: ["])
def test_a_malformed_override_is_one_line_with_its_origin(value):
    assert "-s seed=" in refusal(f"seed={value}")


def test_settings_that_are_nested_too_deeply_are_one_line(tmp_path):
    assert "nested less deeply" in refusal("selection.options." + ".".join("a" * 9_999) + "=1")
    path = written(tmp_path, "rerank: {options: &self {self: *self}}\n")
    assert "nested less deeply" in refusal(path=path) and str(path) in refusal(path=path)


@pytest.mark.parametrize("text", ["- seed\n", "7\n", "freeret\n"])
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path, text):
    path = written(tmp_path, text)
    assert "must be a mapping" in refusal(path=path) and str(path) in refusal(path=path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "No such file" in refusal(path=tmp_path / "none.yaml")
    assert "directory" in refusal(path=tmp_path)
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00seed: 1")
    assert "not UTF-8" in refusal(path=path)
