"""Retrieval datasets: each published layout from a small copy that was made by its rules."""

import json
import tempfile
from pathlib import Path

import pytest
import retrieval_layouts as layouts
from hypothesis import given
from hypothesis import strategies as st

from lvqa.datasets.retrieval import CATEGORIES, RETRIEVAL_DATASETS, load_sets
from lvqa.datasets.retrieval.own import QueryRow
from lvqa.evaluation.retrieval.rows import RANKINGS, RankingRow
from lvqa.records import LvqaError

WRITERS = {
    "mmeb": layouts.write_mmeb,
    "mmeb_v2_video": layouts.write_mmeb_video,
    "flickr30k": lambda folder: layouts.write_karpathy(folder, "dataset_flickr30k.json", has_folders=False),
    "coco": lambda folder: layouts.write_karpathy(folder, "dataset_coco.json", has_folders=True),
    "sharegpt4v": layouts.write_sharegpt4v,
    "urban1k": layouts.write_urban1k,
    "sugarcrepe": layouts.write_sugarcrepe,
    "own": layouts.write_own,
}


def write_retllm(folder: Path) -> None:
    """Write each dataset of RetLLM's tables into the folder of its name."""
    for name in ("flickr30k", "coco", "sharegpt4v", "urban1k", "sugarcrepe"):
        (folder / name).mkdir()
        WRITERS[name](folder / name)


WRITERS["retllm"] = write_retllm
NUM_SETS = {"mmeb": 36, "mmeb_v2_video": 18, "sugarcrepe": 7, "own": 1, "retllm": 15}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder with a small copy of a dataset, which is made once."""
    made = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            WRITERS[name](made[name])
        return made[name]

    return of


def read(folder, name, *sets, limit=None):
    return load_sets(name, folder(name), sets=sets or None, limit=limit)[0]


def test_every_dataset_has_a_copy_here():
    assert set(WRITERS) == set(RETRIEVAL_DATASETS)


@pytest.mark.parametrize("name", RETRIEVAL_DATASETS)
def test_the_contract_of_a_dataset(folder, name):
    sets, files = load_sets(name, folder(name))
    assert len(sets) == NUM_SETS.get(name, 2)
    assert files and all(file.is_file() for file in files)
    assert len({one.name for one in sets}) == len(sets)
    for one in sets:
        assert one.category in CATEGORIES and one.modality in ("image", "video")
        assert one.queries and one.nouns.query and one.nouns.candidate
        assert len({query.id for query in one.queries}) == len(one.queries)
        assert not any(content.is_empty for content in one.candidates.values())
        for query in one.queries:
            assert not query.content.is_empty
            assert set(one.names_of(query)) <= set(one.candidates)
            assert query.targets and set(query.targets) <= set(one.names_of(query))
        if name not in ("sharegpt4v", "retllm"):  # its pictures are the user's; three are enough here
            contents = [*one.candidates.values(), *(query.content for query in one.queries)]
            files = [path for content in contents for path in content.files if path.suffix != ".mp4"]
            assert all(path.is_file() for path in files)


@pytest.mark.parametrize("name", RETRIEVAL_DATASETS)
def test_a_limit_takes_the_first_queries_and_candidates_of_all_where_all_are_searched(folder, name):
    for whole, cut in zip(read(folder, name), read(folder, name, limit=1), strict=True):
        assert cut.queries == whole.queries[:1]
        if whole.queries[0].candidates is None:
            assert cut.candidates == whole.candidates


def test_mmebs_rows_become_queries_named_as_vlm2vec_names_them(folder):
    classes, images, both = read(folder, "mmeb", "ImageNet-1K", "MSCOCO_t2i", "RefCOCO-Matching")
    root = folder("mmeb") / "image-tasks"
    query = classes.queries[1]
    assert (query.content.text, query.content.image) == ("query 1", root / "ImageNet-1K/q1.jpg")
    assert query.candidates == ("target 1", "b", "c") and query.targets == ("target 1",)
    assert query.instruction == "Represent the given image"
    assert list(classes.candidates) == ["target 0", "b", "c", "target 1"]
    assert images.queries[0].content.image is None
    assert images.candidates["MSCOCO_t2i/b.jpg"].image == root / "MSCOCO_t2i/b.jpg"
    assert images.instruction == "Represent the candidate"
    assert both.queries[0].targets == ("RefCOCO-Matching/t0.jpg:target 0",)
    assert both.candidates["RefCOCO-Matching/b.jpg:b"].text == "b"


def test_every_label_of_a_video_classification_is_a_candidate(folder):
    sizes = {"K700": 700, "HMDB51": 51, "UCF101": 101, "Breakfast": 10}
    for one in read(folder, "mmeb_v2_video", *sizes):
        assert len(one.candidates) == sizes[one.name] and one.queries[0].candidates is None


def test_a_videos_frames_are_eight_in_the_order_of_their_numbers(folder):
    (one,) = read(folder, "mmeb_v2_video", "MSR-VTT")
    content = one.candidates["video71"]
    assert [path.name for path in content.frames] == [f"frame_{i}.jpg" for i in (0, 1, 2, 3, 5, 6, 7, 9)]
    assert one.queries[1].content.text == "caption 1" and one.queries[1].targets == ("video71",)
    (moments,) = read(folder, "mmeb_v2_video", "QVHighlight")
    assert len(moments.candidates["m0/negative_1"].frames) == 3
    assert moments.queries[0].targets == ("m0/positive_clip",)
    assert moments.queries[0].candidates == ("m0/negative_0", "m0/negative_1", "m0/positive_clip")


def test_moments_may_be_searched_by_a_picture_or_a_clip(folder):
    plain, with_picture, with_clip = (
        query.content for query in read(folder, "mmeb_v2_video", "MomentSeeker")[0].queries
    )
    assert not plain.files and with_picture.image.name == "query_x.jpg" and len(with_clip.frames) == 8


@pytest.mark.parametrize(
    ("name", "candidates", "target", "text"),
    [
        ("MVBench", ("(A) x", "(B) y"), "(B) y", "What?\nOptions:\n(A) x\n(B) y"),
        ("NExTQA", ("o0", "o1", "o2", "o3", "o4"), "o2", "why\nOptions:\n(A) o0\n(B) o1\n(C) o2\n(D) o3\n(E) o4"),
        ("EgoSchema", ("A. cooking.", "B. reading."), "B. reading.", "What is C doing? A. cooking. B. reading."),
        ("Video-MME", ("A. he.", "B. she."), "B. she.", "Who?\nA. he.\nB. she."),
        ("ActivityNetQA", ("yes", "no"), "no", "is it day? (A) yes; (B) no."),
    ],
)
def test_questions_have_their_options(folder, name, candidates, target, text):
    (one,) = read(folder, "mmeb_v2_video", name)
    query = one.queries[0]
    assert (query.candidates, query.targets, query.content.text) == (candidates, (target,), text)
    if name == "EgoSchema":
        assert one.candidates["A. cooking."].text == "cooking"


@pytest.mark.parametrize("name", ["flickr30k", "coco"])
def test_karpathys_test_split_has_five_captions_a_picture(folder, name):
    to_text, to_image = read(folder, name)
    assert len(to_text.queries) == 2 and len(to_image.queries) == 10
    assert len(to_text.queries[0].targets) == 5 and len(to_text.candidates) == 10
    assert to_image.queries[7].content.text == "caption 3 2"
    assert to_image.candidates[to_image.queries[7].targets[0]] == to_text.queries[1].content


@pytest.mark.slow
def test_sharegpt4v_is_the_first_thousand_of_a_file_that_is_not_read_to_its_end(folder):
    to_text, _ = read(folder, "sharegpt4v")
    assert len(to_text.queries) == 1000
    assert to_text.candidates["coco/train2017/7.jpg#0"].text == "A long caption 7"


def test_urban1ks_captions_are_in_the_order_of_their_numbers(folder):
    _, to_image = read(folder, "urban1k")
    assert [query.targets for query in to_image.queries] == [("1",), ("2",), ("10",)]
    assert to_image.queries[0].content.text == "street 1, seen from above"


def test_own_sets_lie_in_one_folder_or_in_several(folder, tmp_path):
    (one,) = read(folder, "own")
    assert (one.nouns.query, one.nouns.candidate, one.category) == ("phrase", "thing", "grounding")
    assert one.queries[0].candidates is None and one.queries[1].candidates == ("a", "b", "c")
    assert (one.candidates["c"].start_seconds, one.candidates["c"].end_seconds) == (1, 2.5)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        layouts.write_own(tmp_path / name)
    assert [one.name for one in load_sets("own", tmp_path)[0]] == ["first", "second"]


OWN_FAULTS = [
    ({"id": "q", "text": "x", "positives": ["z"]}, {}, "'z' is no id in candidates.jsonl"),
    ({"id": "q", "text": "x", "positives": []}, {}, "positives must be one or more ids of candidates"),
    ({"id": "q", "text": " ", "positives": ["a"]}, {}, "there is nothing in it"),
    ({"id": "q", "text": "x"}, {}, "positives is missing"),
    ({"id": "q", "text": "x", "positives": ["a"]}, {"start": 2, "end": 1, "video": "v.mp4"}, "start before end"),
    ({"id": "q", "text": "x", "positives": ["a"]}, {"start": 1, "end": 2}, "with a video"),
    ({"id": "q", "text": "\ud800", "positives": ["a"]}, {}, "surrogates"),
]


@pytest.mark.parametrize(("query", "candidate", "message"), OWN_FAULTS)
def test_a_fault_in_own_files_is_one_line_with_its_place(tmp_path, query, candidate, message):
    layouts.lines(tmp_path / "queries.jsonl", [query])
    layouts.lines(tmp_path / "candidates.jsonl", [{"id": "a", "text": "x", **candidate}])
    with pytest.raises(LvqaError) as error:
        load_sets("own", tmp_path)
    assert message in str(error.value) and "line 1" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "path", "content"),
    [
        ("flickr30k", "dataset_flickr30k.json", '{"images":[{"filename":"../x","split":"test","sentences":[]}]}'),
        ("flickr30k", "dataset_flickr30k.json", '{"images": [{"split": "test"}]}'),
        ("flickr30k", "dataset_flickr30k.json", '{"images": []}'),
        ("coco", "dataset_coco.json", "[1"),
        ("sharegpt4v", "share-captioner_coco_lcs_sam_1246k_1107.json", '{"a": 1}'),
        ("sharegpt4v", "share-captioner_coco_lcs_sam_1246k_1107.json", '[{"image": "x.jpg"'),
        ("sharegpt4v", "share-captioner_coco_lcs_sam_1246k_1107.json", '[{"image": "/etc/x", "conversations": []}]'),
        ("sugarcrepe", "replace_obj.json", '{"0": {"filename": "a.jpg", "caption": 3}}'),
        ("mmeb", "annotations/MMEB_Test_Instruct/N24News/test-0.parquet", "no parquet"),
        ("mmeb_v2_video", "annotations/UCF101/test.jsonl", '{"video_id": "a"}\n'),
        ("mmeb_v2_video", "annotations/UCF101/test.jsonl", '{"video_id": "../a", "pos_text": "x"}\n'),
        ("mmeb_v2_video", "annotations/NExTQA/test.jsonl", '{"question": "x", "a0": "y"}\n'),
        ("own", "queries.jsonl", "{"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, name, path, content):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    sets = {"N24News": ["N24News"], "UCF101": ["UCF101"], "NExTQA": ["NExTQA"]}.get(file.parent.name)
    with pytest.raises(LvqaError) as error:
        load_sets(name, tmp_path, sets=sets)
    assert "\n" not in str(error.value) and (str(file) in str(error.value) or str(tmp_path) in str(error.value))


@pytest.mark.parametrize("name", RETRIEVAL_DATASETS)
def test_an_empty_folder_is_one_line(tmp_path, name):
    with pytest.raises(LvqaError) as error:
        load_sets(name, tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_unknown_names_are_refused_with_those_there_are(folder):
    with pytest.raises(LvqaError, match=r"dataset.name must be one of mmeb, .*own, got 'msmarco'"):
        load_sets("msmarco", folder("own"))
    with pytest.raises(LvqaError, match=r"a set of SugarCrepe must be one of replace_obj, .*got 'replace'"):
        load_sets("sugarcrepe", folder("sugarcrepe"), sets=["replace"])


def test_a_right_candidate_that_is_none_stays_a_query(tmp_path):
    """Something-Something's label may be missing among its candidates; such a query counts, and is never right."""
    layouts.write_mmeb_video(tmp_path)
    path = tmp_path / "annotations" / "SmthSmthV2" / "test.parquet"
    layouts.table(path, [{"video_id": 7, "pos_text": "Throwing it", "neg_text": ["Closing it"]}])
    (one,) = load_sets("mmeb_v2_video", tmp_path, sets=["SmthSmthV2"])[0]
    assert one.queries[0].targets == ("Throwing it",) and one.queries[0].candidates == ("Closing it",)
    assert json.loads(json.dumps(list(one.candidates))) == ["Closing it"]


SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUE = SCALAR | st.lists(SCALAR, max_size=3)
QUERY_ROW = st.dictionaries(st.sampled_from(sorted(QueryRow.__annotations__)), VALUE)
RANKING_ROW = st.dictionaries(st.sampled_from(sorted(RankingRow.__annotations__)), VALUE)


@pytest.mark.slow
@given(QUERY_ROW | VALUE, QUERY_ROW)
def test_any_rows_of_own_sets_are_read_or_refused_in_one_line(query, candidate):
    with tempfile.TemporaryDirectory() as folder:
        for name, row in (("queries", query), ("candidates", candidate)):
            (Path(folder) / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        try:
            load_sets("own", Path(folder))
        except LvqaError as error:
            assert "\n" not in str(error)


@given(RANKING_ROW | VALUE)
def test_any_row_of_rankings_is_read_or_refused_in_one_line(row):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / RANKINGS.name
        path.write_text(json.dumps(row) + "\n")
        try:
            list(RANKINGS.read(path))
        except LvqaError as error:
            assert "\n" not in str(error)
