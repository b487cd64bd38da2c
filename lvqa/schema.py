"""JSON schemas of answers: what they may say, and what holds a model to them.

llguidance does the work: from a schema it makes a grammar, and from the grammar, at each token, the tokens that may
follow. It is an extra.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lvqa.records import LvqaError, shorten

if TYPE_CHECKING:
    import numpy as np

SECONDS = "seconds"
"""The `format` of a number that is a time in the video."""
SECONDS_STEP = 0.1
"""Such a number is a multiple of this, unless the schema has a multipleOf of its own."""
MAX_SCHEMA_CHARACTERS = 32_000
NUMBERS = ("number", "integer")

_FORM = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""An answer is written as Python's json writes it: a model that may write spaces may write nothing else."""
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONES = ("items", "additionalProperties")
"""The keywords under which schemas stand in a schema: by name, in a list, or one."""


@dataclass(frozen=True, slots=True)
class AnswerSchema:
    """What an answer about a video must fit."""

    text: str
    """The JSON schema, as `schema_text` returns it."""
    duration_seconds: float | None = None
    """The length of the video, which no time in the answer is beyond; None: it is not known."""

    def grammar(self) -> str:
        """Return the grammar of the answer."""
        guidance = _library()
        bounded = _closed(json.loads(self.text), self.duration_seconds)
        return guidance.LLMatcher.grammar_from_json_schema(bounded, overrides=_FORM)  # type: ignore[no-any-return]

    def parse(self, reply: str) -> Any:
        """Return the object that a reply is.

        Raises:
            LvqaError: The reply was cut before its end.
        """
        try:
            return json.loads(reply)
        except json.JSONDecodeError:
            raise LvqaError(
                "the answer reached answer.max_object_tokens before its object was complete: raise it, or bound the "
                f"schema's texts and lists (maxLength, maxItems); so far: {shorten(reply)}"
            ) from None


def schema_text(schema: Mapping[str, Any] | str | Path) -> str:
    """Return a schema as a question has it: JSON on one line.

    Args:
        schema: The schema as a dict, or the path of a file with it.

    Raises:
        LvqaError: The file can't be read, or is no JSON.
    """
    if isinstance(schema, Mapping):
        try:
            return json.dumps(schema, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise LvqaError(f"schema is no JSON: {error}") from None
    try:
        return json.dumps(json.loads(Path(schema).expanduser().read_bytes()), ensure_ascii=False)
    except OSError as error:
        raise LvqaError(f"cannot read the schema {schema}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise LvqaError(f"the schema {schema} is no JSON: {' '.join(str(error).split())}") from None


def check_schema(text: str) -> None:
    """Refuse a schema that no answer can be held to.

    Raises:
        LvqaError: It is no schema of an object, it has what llguidance can't hold to, or that is not installed.
    """
    if len(text) > MAX_SCHEMA_CHARACTERS:
        raise LvqaError(f"schema has {len(text)} characters; allowed: {MAX_SCHEMA_CHARACTERS}")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LvqaError(f"schema is no JSON: {error}") from None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise LvqaError(f'schema must be that of an object, with "type": "object", got {shorten(text)}')
    guidance = _library()
    try:
        _, messages = guidance.LLMatcher.validate_grammar_with_warnings(AnswerSchema(text).grammar())
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        messages = [str(error)]
    if messages:
        raise LvqaError(f"schema can't be used: {' '.join(messages[0].split())}")


def has_times(text: str) -> bool:
    """Return whether a schema, as `schema_text` returns it, has numbers that are times in the video."""
    return f'"format": "{SECONDS}"' in text


def _closed(schema: Any, duration_seconds: float | None) -> Any:
    """Return a schema with times inside the video, and objects without properties that it does not name.

    An object that says something of other properties keeps that, and so do the members of an allOf.
    """
    if not isinstance(schema, dict):
        return schema
    changed = dict(schema)
    for key in _MAPS:
        if isinstance(schema.get(key), dict):
            changed[key] = {name: _closed(item, duration_seconds) for name, item in schema[key].items()}
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            changed[key] = [_closed(item, duration_seconds) for item in schema[key]]
    for key in _ONES:
        if key in schema:
            changed[key] = _closed(schema[key], duration_seconds)
    if "properties" in schema and not {"additionalProperties", "patternProperties", "allOf"} & set(schema):
        changed["additionalProperties"] = False
    return _timed(changed, duration_seconds)


def _timed(schema: dict[str, Any], duration_seconds: float | None) -> dict[str, Any]:
    """Return the schema of a number, bounded by the video if it is a time; any other as it is."""
    if schema.get("format") != SECONDS or schema.get("type") not in NUMBERS:
        return schema
    video: dict[str, Any] = {"minimum": 0}
    if duration_seconds is not None:
        video["maximum"] = round(int(duration_seconds / SECONDS_STEP) * SECONDS_STEP, 1)  # in whole steps
    step = {"multipleOf": SECONDS_STEP} if schema["type"] == "number" else {}
    own = {key: value for key, value in schema.items() if key != "format"}
    return {"allOf": [{**step, **own}, {"type": schema["type"], **video}]}


class SchemaTokens:
    """A tokenizer as llguidance needs it; to make it takes a second."""

    def __init__(self, tokenizer: Any, vocabulary_size: int) -> None:
        """Read the vocabulary.

        Args:
            tokenizer: The library's tokenizer.
            vocabulary_size: How many logits the model has.

        Raises:
            LvqaError: llguidance can't read it.
        """
        from importlib import import_module

        _library()
        try:
            self._tokens = import_module("llguidance.hf").from_tokenizer(tokenizer, n_vocab=vocabulary_size)
        except ValueError as error:
            raise LvqaError(f"llguidance can't read this model's tokenizer: {error}") from error
        self._size = vocabulary_size

    def matcher(self, schema: AnswerSchema) -> SchemaMatcher:
        """Return what follows one answer.

        Raises:
            LvqaError: The schema can't be used.
        """
        return SchemaMatcher(_library().LLMatcher(self._tokens, schema.grammar(), log_level=0), self._size)


class SchemaMatcher:
    """Follows one answer, token by token."""

    def __init__(self, matcher: Any, vocabulary_size: int) -> None:
        """Begin before the first token; `matcher` is the library's."""
        if matcher.is_error():
            raise LvqaError(f"schema can't be used: {' '.join(matcher.get_error().split())}")
        self._matcher, self._size = matcher, vocabulary_size

    def add(self, token: int) -> None:
        """Go on by a token, which must be allowed."""
        if not self._matcher.consume_token(token):
            raise LvqaError(f"the answer can't go on within its schema: {' '.join(self._matcher.get_error().split())}")

    def allowed(self) -> np.ndarray:
        """Return whether each token may follow, (vocabulary,) bool; after the end only the one that ends a reply."""
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, count=self._size, bitorder="little").astype(bool)


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise LvqaError("an answer with a schema needs llguidance: pip install 'lvqa[schema]'") from None
    return llguidance
