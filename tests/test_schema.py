"""Answers that fit a JSON schema: whatever the model says, the object is valid, and what can't be kept is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import small_models
import video_files
from click.testing import CliRunner
from library_reference import encoded_clip
from pipelines import make_pipeline
from servers import call_json, running_server

from lvqa import prompts
from lvqa.cli.main import lvqa_command
from lvqa.models import load_model
from lvqa.models.decoder import Decoder
from lvqa.models.decoding import GREEDY, Decoding
from lvqa.models.prompt import Prompt
from lvqa.pipeline import LongVideoQA
from lvqa.records import SYNTHETIC_TAG, Answer, LvqaError, Question
from lvqa.schema import AnswerSchema, SchemaTokens, check_schema, schema_text

SECONDS = {"type": "number", "format": "seconds"}
MOMENT = {"type": "object", "properties": {"what": {"type": "string", "maxLength": 12}, "at": SECONDS}}
MOMENT |= {"required": ["what", "at"]}
SCHEMAS: dict[str, dict[str, Any]] = {
    "moment": MOMENT,
    "integer": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 2, "maximum": 40}}},
    "choice": {"type": "object", "properties": {"a": {"enum": ["red", "blue"]}, "b": {"const": None}}},
    "list": {
        "type": "object",
        "properties": {"moments": {"type": "array", "items": MOMENT, "minItems": 1, "maxItems": 2}},
        "required": ["moments"],
    },
    "reference": {
        "$defs": {"moment": MOMENT},
        "type": "object",
        "properties": {"first": {"$ref": "#/$defs/moment"}, "sure": {"type": "boolean"}},
        "required": ["first", "sure"],
    },
    "either": {
        "type": "object",
        "properties": {"x": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 0, "maximum": 9}]}},
        "required": ["x"],
    },
    "pattern": {"type": "object", "properties": {"id": {"type": "string", "pattern": "^[a-f]{2,4}$"}}},
}
REQUIRED = {name: schema | {"required": list(schema["properties"])} for name, schema in SCHEMAS.items()}


def check(answer: Any, schema: dict[str, Any]) -> None:
    """Check that an object fits a schema, by another library than the one that made it fit."""
    jsonschema.Draft202012Validator(schema).validate(answer)


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["qwen2_5_vl", "internvl"])
def random(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """A model with random weights, which says anything that it may."""
    loaded = load_model(
        str(small_models.save(request.param, tmp_path_factory.mktemp("random"))), device="cpu", dtype="float32"
    )
    assert isinstance(loaded, Decoder)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoding", [GREEDY, *(Decoding(do_sample=True, temperature=2.0, seed=seed) for seed in (1, 2))]
)
def test_whatever_a_model_says_the_objects_of_a_batch_fit_their_schemas(random: Decoder, decoding: Decoding) -> None:
    """Each row has a matcher of its own; the same objects come one by one, and behind prefixes."""
    clip: Prompt = ("Look:", encoded_clip(random, 2))
    ends: list[Prompt] = [(f"What is it, {name}?",) for name in REQUIRED]
    schemas = [AnswerSchema(json.dumps(schema), 42.0) for schema in REQUIRED.values()]
    options: dict[str, Any] = {"max_new_tokens": 200, "decoding": decoding}
    whole = [(*clip, *end) for end in ends]
    together = random.generate(whole, schemas=schemas, **options)
    for text, schema in zip(together, REQUIRED.values(), strict=True):
        check(json.loads(text), schema)
    assert together == [
        random.generate([prompt], schemas=[schema], **options)[0] for prompt, schema in zip(whole, schemas, strict=True)
    ]
    prefixes = random.prefill_prefix([clip] * len(ends))
    assert random.generate(ends, prefixes=prefixes, schemas=schemas, **options) == together


def test_a_free_reply_beside_an_object_is_as_without_it(random: Decoder) -> None:
    whole: list[Prompt] = [("say",), ("What?",)]
    schema = AnswerSchema(json.dumps(REQUIRED["integer"]))
    free, _ = random.generate(whole, max_new_tokens=12, schemas=[None, schema])
    assert free == random.generate(whole[:1], max_new_tokens=12)[0]


def test_tokens_come_as_they_are_chosen_and_the_last_one_ends_the_reply(random: Decoder) -> None:
    tokens: list[int] = []
    schema = AnswerSchema(json.dumps(REQUIRED["choice"]))
    (text,) = random.generate(
        [("What?",)], max_new_tokens=60, schemas=[schema], on_token=lambda _, token, __: tokens.append(token)
    )
    assert random.tokenizer.decode(tokens[:-1]) == text and tokens[-1] == random.tokenizer.eos_token_id


# --- schemas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "schema is no JSON: Expecting property name"),
        ("[1]", 'schema must be that of an object, with "type": "object", got'),
        ('{"type": "array"}', 'schema must be that of an object, with "type": "object", got'),
        ('{"type": "object", "properties": 5}', "schema can't be used: properties must be an object"),
        ('{"type": "object", "properties": {"a": {"type": "nope"}}}', "schema can't be used: Invalid type: nope"),
        ('{"type": "object", "properties": {"a": {"not": {}}}}', "schema can't be used: Unimplemented keys"),
        (
            '{"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}}',
            "schema can't be used: Unimplemented keys",
        ),
        (
            '{"type": "object", "properties": {"a": {"type": "string", "format": "seconds"}}}',
            "schema can't be used: Unknown format: seconds",
        ),
        (
            '{"type": "object", "properties": {"a": {"type": "number", "format": "seconds", "minimum": "x"}}}',
            "schema can't be used: .*minimum",
        ),
        (json.dumps({"type": "object", "description": "x" * 40_000}), r"schema has 400\d\d characters; allowed: 32000"),
    ],
)
def test_a_schema_that_no_answer_can_be_held_to_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(LvqaError, match=message):
        check_schema(text)


def test_without_the_library_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(LvqaError, match=r"needs llguidance: pip install 'lvqa\[schema\]'"):
        check_schema(json.dumps(MOMENT))


def test_a_schema_is_a_dict_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps(MOMENT, indent=2))
    assert schema_text(MOMENT) == schema_text(path) == schema_text(str(path)) == json.dumps(MOMENT)
    path.write_text("{")
    with pytest.raises(LvqaError, match=r"the schema .*s.json is no JSON"):
        schema_text(path)
    with pytest.raises(LvqaError, match=r"cannot read the schema .*: No such file"):
        schema_text(tmp_path / "none.json")
    with pytest.raises(LvqaError, match=r"schema is no JSON: .*set"):
        schema_text({"type": {1}})


@pytest.mark.parametrize(
    ("bounds", "allowed", "refused"),
    [
        ({}, ["0", "7.5", "30"], ["30.1", "-1", "7.55", "1e1"]),
        ({"minimum": 10}, ["10", "30"], ["9.9", "30.1"]),
        ({"minimum": -5, "maximum": 20}, ["0", "20"], ["20.1", "-1"]),
        ({"multipleOf": 0.5}, ["7.5"], ["7.1"]),
    ],
)
def test_a_time_is_inside_the_video(tiny, bounds: dict[str, Any], allowed: list[str], refused: list[str]) -> None:
    schema = {"type": "object", "properties": {"format": SECONDS | bounds}, "required": ["format"]}
    tokens = SchemaTokens(tiny.tokenizer, len(tiny.tokenizer))

    def fits(text: str) -> bool:
        matcher = tokens.matcher(AnswerSchema(json.dumps(schema), 30.04))
        try:
            for token in tiny.tokenizer(f'{{"format": {text}}}', add_special_tokens=False).input_ids:
                matcher.add(token)
        except LvqaError:
            return False
        return bool(matcher.allowed()[tiny.tokenizer.eos_token_id])

    assert [text for text in (*allowed, *refused) if fits(text)] == allowed


def test_a_time_that_no_video_of_this_length_has_is_one_line(tiny) -> None:
    schema = {"type": "object", "properties": {"at": SECONDS | {"minimum": 100}}, "required": ["at"]}
    with pytest.raises(LvqaError, match="schema can't be used: Unsatisfiable"):
        SchemaTokens(tiny.tokenizer, len(tiny.tokenizer)).matcher(AnswerSchema(json.dumps(schema), 30.0))


def test_an_object_has_no_other_properties_unless_its_schema_says_so(tiny) -> None:
    grammars = [
        json.loads(AnswerSchema(json.dumps(MOMENT | more)).grammar())["grammars"][0]["json_schema"]
        for more in ({}, {"additionalProperties": {"type": "null"}})
    ]
    assert [grammar["additionalProperties"] for grammar in grammars] == [False, {"type": "null"}]


def test_the_prompt_has_the_schema_and_the_unit_of_its_times() -> None:
    text = prompts.answer(Question("When?", schema=json.dumps(MOMENT)))
    assert text.startswith("When?\nAnswer with a JSON object that fits this schema:\n" + json.dumps(MOMENT))
    assert "in seconds from the start of the video: [01:30] is 90." in text
    assert "seconds" not in prompts.answer(Question("When?", schema=json.dumps(SCHEMAS["choice"])))


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """20 seconds; it stands for a video of the user."""
    path = tmp_path_factory.mktemp("own") / "garden.mkv"
    return video_files.write_video(path, 100, fps=5, metadata={"comment": SYNTHETIC_TAG})


@pytest.fixture(scope="module")
def qa(tiny, tmp_path_factory) -> LongVideoQA:
    return make_pipeline(tiny, tmp_path_factory.mktemp("store"), "rerank.pool=2", "selection.frames=4")


@pytest.mark.slow
def test_an_answer_is_an_object_with_times_inside_the_video(qa: LongVideoQA, video: Path) -> None:
    answer = qa.ask(video, "When is the ball seen?", schema=REQUIRED["list"])
    check(answer.parsed, REQUIRED["list"])
    assert json.loads(answer.text) == answer.parsed and answer.option is None
    assert all(0 <= moment["at"] <= 20 for moment in answer.parsed["moments"])
    assert answer.evidence and answer.frames, "the evidence with its times is beside it"
    free = qa.ask(video, "When is the ball seen?")
    assert free.parsed is None and free.text != answer.text


@pytest.mark.slow
def test_questions_with_schemas_and_without_are_answered_together_as_alone(qa: LongVideoQA, video: Path) -> None:
    questions = [Question("What?", schema=json.dumps(schema)) for schema in REQUIRED.values()]
    questions = [*questions, Question("What?"), Question("Which?", ("red", "blue"))]
    together = qa.answers(video, questions)
    fresh = make_pipeline(qa.model, qa.store.folder, "rerank.pool=2", "selection.frames=4")
    for answer, question in zip(together, questions, strict=True):
        alone = fresh.answer(video, question)
        assert (alone.text, alone.parsed, alone.frames) == (answer.text, answer.parsed, answer.frames)
    for answer, schema in zip(together, REQUIRED.values(), strict=False):
        check(answer.parsed, schema)


@pytest.mark.slow
def test_an_object_that_is_cut_is_one_line(tiny, tmp_path: Path, video: Path) -> None:
    qa = make_pipeline(tiny, tmp_path, "rerank.pool=0", "selection.frames=2", "answer.max_object_tokens=3")
    with pytest.raises(LvqaError, match=r"reached answer\.max_object_tokens before its object was complete"):
        qa.ask(video, "When?", schema=MOMENT)


def test_options_and_a_schema_do_not_go_together(qa: LongVideoQA, video: Path) -> None:
    with pytest.raises(LvqaError, match="a question has options or a schema, not both"):
        qa.ask(video, "Which?", options=["red", "blue"], schema=MOMENT)


# --- the command line and the server ----------------------------------------------------------------------------------


def ask(*words: str, code: int = 0) -> Any:
    result = CliRunner().invoke(lvqa_command, ["ask", *words])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.slow
def test_the_command_prints_the_object(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVQA_HOME", str(tmp_path / "store"))
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(REQUIRED["moment"]))
    common = ("--model", "tiny", "--device", "cpu", "--schema", str(path), "-s", "rerank.pool=2")
    content = json.loads(ask(str(video), "When?", "--json", *common).stdout)
    check(content["parsed"], REQUIRED["moment"])
    assert json.loads(content["answer"]) == content["parsed"]
    assert json.loads(ask(str(video), "When?", *common).stdout.splitlines()[0]) == content["parsed"]
    table = tmp_path / "q.csv"
    table.write_text("video,question,options,answer\ngarden,What?,,\ngarden,Which?,a|b,A\n")
    lines = ask(str(video), "--questions", str(table), "--json", *common).stdout.splitlines()
    first, second = map(json.loads, lines)
    check(first["parsed"], REQUIRED["moment"])
    assert second["parsed"] is None and second["option"] in "AB"


def test_a_bad_schema_is_refused_before_a_model_is_looked_for(video: Path, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text('{"type": "array"}')
    for words in ((str(video), "When?"), (str(video), "--questions", "none.csv")):
        result = ask(*words, "--schema", str(path), "--model", str(tmp_path / "no-model"), code=1)
        assert "schema must be that of an object" in result.stderr and "no-model" not in result.stderr


@pytest.mark.slow
def test_the_server_answers_with_objects(qa: LongVideoQA, video: Path, tmp_path: Path) -> None:
    schema = REQUIRED["moment"]
    form = {"type": "json_schema", "json_schema": {"name": "moment", "schema": schema, "strict": True}}
    with running_server(qa.model, tmp_path, video, overrides=("rerank.pool=2", "selection.frames=4")) as url:
        status, answer = call_json(url, "POST", "/api/ask", {"question": "When?", "schema": schema})
        assert status == 200
        check(answer["parsed"], schema)
        remote = LongVideoQA.connect(url).ask(video, "When?", schema=schema)
        assert isinstance(remote, Answer) and remote.parsed == answer["parsed"]
        chat = {"messages": [{"role": "user", "content": "When?"}], "response_format": form}
        status, reply = call_json(url, "POST", "/v1/chat/completions", chat | {"model": "lvqa"})
        assert status == 200 and json.loads(reply["choices"][0]["message"]["content"]) == answer["parsed"]
        status, reply = call_json(url, "POST", "/v1/chat/completions", chat | {"model": "tiny", "max_tokens": 200})
        assert status == 200 and reply["choices"][0]["finish_reason"] == "stop"
        check(json.loads(reply["choices"][0]["message"]["content"]), schema)
        status, reply = call_json(url, "POST", "/v1/chat/completions", chat | {"model": "tiny", "max_tokens": 3})
        assert status == 200 and reply["choices"][0]["finish_reason"] == "length"
        bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array"}}}
        for model in ("lvqa", "tiny"):
            body = chat | {"model": model, "response_format": bad}
            status, refusal = call_json(url, "POST", "/v1/chat/completions", body)
            assert status == 400 and "schema must be that of an object" in refusal["error"]["message"]
        status, reply = call_json(
            url, "POST", "/v1/chat/completions", chat | {"model": "lvqa", "response_format": {"type": "text"}}
        )
        assert status == 200 and "Evidence" in reply["choices"][0]["message"]["content"]
