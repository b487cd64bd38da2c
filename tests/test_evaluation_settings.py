"""The settings of a run, and the order of its item. No model is loaded."""

from pathlib import Path

import pytest

from lvqa.config import load_config
from lvqa.evaluation import RunConfig, join_runs, load_run_config, resolve_arms
from lvqa.evaluation.run import check_run, for_workers
from lvqa.records import LvqaError
from lvqa.selection import CONTROLS, SELECTORS
from lvqa.settings_tree import ConfigError
from lvqa.synthetic.videos import HELD_OUT_SEEDS

CONFIGS = Path(__file__).parent.parent / "configs"


def test_defaults_compare_uniform_with_freeret_at_three_budgets():
    arms = resolve_arms(RunConfig())
    assert [(arm.name, arm.budgets) for arm in arms] == [("uniform", (16, 32, 64)), ("freeret", (16, 32, 64))]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("lvbench*.yaml")), ids=lambda path: path.name)
def test_the_benchmark_is_run_against_its_controls(path):
    arms = {arm.name: arm.budgets for arm in resolve_arms(load_run_config(path))}
    assert {name: arms[name] for name in ("uniform", "freeret", "embedding only", "oracle", "blind")} == {
        **dict.fromkeys(("uniform", "freeret", "embedding only", "oracle"), (16, 32, 64)),
        "blind": (0,),
    }
    assert 16 in arms["random"]


def test_every_selector_is_in_the_table_of_all():
    config = load_run_config(CONFIGS / "selectors.yaml")
    check_run(config)
    arms = resolve_arms(config)
    assert {arm.method for arm in arms} == set(SELECTORS) - set(CONTROLS)
    assert {arm.budgets for arm in arms} == {(16, 32, 64)} and config.benchmark.make.seed >= HELD_OUT_SEEDS


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("ablations/*.yaml")), ids=lambda path: path.name)
def test_an_ablation_is_one_run_on_held_out_videos_with_a_baseline(path):
    config = load_run_config(path)
    check_run(config)
    assert path.read_text().startswith(f"# lvqa eval configs/ablations/{path.name} && lvqa report runs/{path.stem}\n")
    (baseline,) = (arm for arm in resolve_arms(config) if arm.name == config.baseline)
    settings = ["model.name=tiny", f"rerank.name={config.rerank.name}", f"rerank.pool={config.rerank.pool}"]
    # The baseline has the defaults, but for the pool's proportion to the video: so each arm measures one change.
    assert (baseline.method, baseline.config) == ("freeret", load_config(None, settings))
    assert len({(arm.method, arm.config) for arm in resolve_arms(config)}) == len(config.arms)
    assert config.benchmark.make.seed >= HELD_OUT_SEEDS


def test_several_runs_are_joined_to_one_whose_arms_are_as_they_were():
    configs = {path.stem: load_run_config(path) for path in sorted(CONFIGS.glob("ablations/*.yaml"))}
    run = join_runs(configs)
    check_run(run)
    apart = [(name, arm) for name, config in configs.items() for arm in resolve_arms(config)]
    assert [(arm.name, arm.method, arm.budgets, arm.config) for arm in resolve_arms(run)] == [
        (f"{name}: {arm.name}", arm.method, arm.budgets, arm.config) for name, arm in apart
    ]
    assert [arm.baseline for arm in resolve_arms(run)] == [f"{name}: {configs[name].baseline}" for name, _ in apart]
    assert run.benchmark == next(iter(configs.values())).benchmark


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (
            "benchmark.make={videos: 3}",
            "benchmark.make.videos of b must be null as in a, with which it is one run, got 3",
        ),
        ("model.name=other", "model.name of b must be 'tiny' as in a, with which it is one run, got 'other'"),
        ("workers=2", "workers of b must be 0 as in a"),
    ],
)
def test_runs_that_differ_in_more_than_arms_are_not_joined(override, named):
    first = load_run_config(None, ["model.name=tiny"])
    with pytest.raises(LvqaError) as refused:
        join_runs({"a": first, "b": load_run_config(None, ["model.name=tiny", override])})
    assert str(refused.value).startswith(named)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("arm=[]", ("unknown key 'arm'", "arms")),
        ("arms=[{methods: uniform}]", ("unknown key 'arms[0].methods'", "arms[0].method")),
        ("arms=[{settings: {rerank.nam: none}}]", ("unknown key 'rerank.nam'", "settings of arm 'freeret rerank.nam")),
        (
            "arms=[{settings: {rerank.pool: many}}]",
            ("rerank.pool must be a whole number, 0 or more, or null, got 'many'",),
        ),
        ("arms=[{settings: {rerank.pool: -1}}]", ("rerank.pool must be a whole number, 0 or more, or null, got -1",)),
        ("arms=[{settings: {benchmark.limit: 3}}]", ("unknown key 'benchmark'",)),
        ("arms=[{settings: {model.name: other}}]", ("model.name", "settings of arm")),
        ("arms=[{settings: {model: {name: other}}}]", ("model.name", "settings of arm")),
        ("arms=[{settings: {selection.frames: 3}}]", ("selection.frames", "settings of arm")),
        ("arms=[{settings: [1]}]", ("arms[0].settings must be a mapping", "[1]")),
        ("arms=[{settings: {1: 2}}]", ("arms[0].settings must be a mapping",)),
        ("arms=[uniform]", ("arms[0] must be a mapping", "'uniform'")),
        ("arms=uniform", ("arms must be a list of 1 or more, each item a mapping of keys to values, got 'uniform'",)),
        ("arms=[]", ("arms must be a list of 1 or more", "got []")),
        ("arms=[{method: topk}, {method: topk}]", ("the name of an arm", "'topk'")),
        ("arms=[{method: blind, frames: [4]}]", ("frames must be left out",)),
        ("baseline=best", ("baseline must be null or an arm: uniform, freeret", "'best'")),
        ("arms=[{baseline: best}]", ("baseline must be null or an arm: freeret", "'best'")),
        ("arms=[{frames: [0]}]", ("arms[0].frames[0] must be a whole number, 1 or more, got 0",)),
        ("arms=[{frames: [8, 8]}]", ("arms[0].frames must be different numbers, got [8, 8]",)),
        ("frames=[]", ("frames must be a list of 1 or more", "got []")),
        ("frames=16", ("frames must be a list of 1 or more, each item a whole number, 1 or more, got 16",)),
        ("frames=[16, true]", ("frames[1] must be a whole number, 1 or more, got true",)),
        ("workers=-1", ("workers must be a whole number, 0 or more, or max, got -1",)),
        ("gpus_per_worker=-1", ("gpus_per_worker", "-1")),
        ("benchmark.limit=0", ("benchmark.limit must be a whole number, 1 or more, or null, got 0",)),
        ("benchmark.videos=0", ("benchmark.videos",)),
        ("benchmark.make={video: 3}", ("unknown key 'benchmark.make.video'", "benchmark.make.videos")),
        ("benchmark.make.films=3", ("benchmark.make.films is called benchmark.make.videos since 0.2 (-s ",)),
        ("arms=[{settings: {answer.read: text}}]", ("answer.read is called answer.mode since 0.2", "settings of arm")),
        ("answer.mode=loud", ("answer.mode must be one of likelihood, logits, text, or null, got 'loud'",)),
    ],
)
def test_a_wrong_setting_is_refused_by_name(override, named):
    with pytest.raises(ConfigError) as caught:
        load_run_config(None, [override])
    assert all(part in str(caught.value) for part in (*named, "(-s "))


def test_arms_that_differ_in_their_selection_share_what_comes_before():
    settings = [
        "{selection.options.power: 2}",
        "{selection.uniform: linspace}",
        "{}",
        "{rerank.pool: 3}",
        "{rerank.options.top: 3}",
    ]
    arms = resolve_arms(
        load_run_config(None, [f"arms=[{', '.join(f'{{method: bolt, settings: {one}}}' for one in settings)}]"])
    )
    assert len({arm.config for arm in arms}) == 5
    assert len({arm.before_selection for arm in arms}) == 3
    assert [arm.complete.method for arm in arms] == ["bolt"] * 5


def test_workers_get_the_same_arms_wherever_they_run():
    arms = [
        "{method: own.py}",
        "{method: uniform, name: even, settings: {rerank: {name: none}}}",
        "{method: blind, settings: {rerank.name: mcq}, name: blind}",
    ]
    config = load_run_config(None, ["rerank.name=closer.py:Look", f"arms=[{', '.join(arms)}]"])
    on_worker = for_workers(config)
    assert (
        [arm.name for arm in resolve_arms(on_worker)]
        == [arm.name for arm in resolve_arms(config)]
        == ["own.py", "even", "blind"]
    )
    assert [arm.method for arm in resolve_arms(on_worker)] == [str(Path("own.py").absolute()), "uniform", "blind"]
    assert [arm.config.rerank.name for arm in resolve_arms(on_worker)] == [
        str(Path("closer.py:Look").absolute()),
        "none",
        "mcq",
    ]


def test_workers_have_the_store_of_the_driver_wherever_their_homes_are(monkeypatch, tmp_path):
    monkeypatch.setenv("LVQA_HOME", str(tmp_path / "home"))
    assert for_workers(load_run_config()).store.folder == tmp_path / "home"
    monkeypatch.chdir(tmp_path)
    assert for_workers(load_run_config(None, ["store.folder=relative"])).store.folder == tmp_path / "relative"
