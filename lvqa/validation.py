"""Refuse in one line what is wrong, before any work: the name, what is allowed, the value and where it stood.

`convert` and `decode_json` check whole trees (settings, rows, annotations) against a type, with msgspec; `require` and
its relatives check one value.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, inspect

from lvqa.audio import read_audio
from lvqa.image import read_image
from lvqa.places import as_path
from lvqa.records import LETTERS, LvqaError, Question, shorten
from lvqa.schema import check_schema

T = TypeVar("T")

MAX_QUESTION_CHARACTERS = 8_000

_MAX = sys.float_info.max

Text = Annotated[str, Meta(min_length=1)]
PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
FiniteFloat = Annotated[float, Meta(ge=-_MAX, le=_MAX)]
PositiveFloat = Annotated[float, Meta(gt=0, le=_MAX)]
NonNegativeFloat = Annotated[float, Meta(ge=0, le=_MAX)]
_WHOLE = "a whole number, 1 or more"


def convert(value: object, kind: type[T], *, origin: str, name: str = "") -> T:
    """Return a tree of plain values as a type holds it.

    A bool is no int, and an int is a float. A text becomes a path, with the user's folder in place of `~`. A dataclass
    takes no key that it has no field for; a TypedDict passes over such keys, and drops them.

    Args:
        value: What YAML or JSON was parsed to; instances of the types may stand in it too.
        kind: A dataclass, a TypedDict, or a list or dict of such; `Annotated[..., msgspec.Meta(...)]` bounds a value,
            and a description in it says what is allowed.
        origin: Where the value stood, for the message: a file, a file and a line, or `-s key=value`.
        name: What the value itself is called; it comes before the keys.

    Raises:
        LvqaError: The value does not fit, or `__post_init__` refused it.
    """
    try:
        _refuse_unknown_keys(value, _info(kind), name)
        return msgspec.convert(value, kind, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        raise LvqaError(f"{_explain(error, value, _info(kind), name)} ({origin})") from None
    except UnicodeEncodeError as error:  # of a key or a text with a lone surrogate
        text = shorten(error.object)
        raise LvqaError(
            f"{name or 'the content'} must be Unicode text, without lone surrogates, got {text} ({origin})"
        ) from None
    except LvqaError as error:
        raise LvqaError(f"{error} ({origin})") from None


def decode_json(content: bytes, kind: type[T], *, origin: str) -> T:
    """Return JSON as a type holds it; see `convert`."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return convert(parse_json(content, origin=origin), kind, origin=origin)


def parse_json(content: bytes, *, origin: str) -> Any:
    """Return JSON as plain values, or raise LvqaError with the place of the fault."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise LvqaError(f"not JSON: byte {error.start} is not UTF-8 text ({origin})") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if b"\n" in content.strip() else ""
        raise LvqaError(f"not JSON: {error.msg}, at {line}column {error.colno} ({origin})") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of thousands of digits
        raise LvqaError(f"not JSON of a sane size: {shorten(str(error))} ({origin})") from None


def check_fields(instance: object) -> None:
    """Raise LvqaError for a field of a dataclass that its annotation does not allow."""
    for name, kind in _hints(type(instance)).items():
        convert(getattr(instance, name), kind, origin=type(instance).__name__, name=name)


_hints: Callable[[Any], dict[str, Any]] = functools.cache(functools.partial(get_type_hints, include_extras=True))
_info: Callable[[Any], inspect.Type] = functools.cache(inspect.type_info)


def _to_path(kind: type, value: object) -> Path:
    """Return a path, from text or as it is: the one type here that msgspec does not know."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    try:
        return as_path(value).expanduser()
    except RuntimeError:  # there is no such user
        raise ValueError from None


def _refuse_unknown_keys(value: object, info: inspect.Type, path: str) -> None:
    """Raise LvqaError for a key that a dataclass has no field for; msgspec would pass over it."""
    if isinstance(info, inspect.UnionType):
        for member in info.types:
            _refuse_unknown_keys(value, member, path)
    elif isinstance(info, inspect.VarTupleType | inspect.ListType) and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_unknown_keys(item, info.item_type, f"{path}[{index}]")
    elif isinstance(info, inspect.DataclassType) and isinstance(value, dict):
        fields = {field.name: field.type for field in info.fields}
        prefix = path and f"{path}."
        for key, item in value.items():
            if key not in fields:
                known = ", ".join(prefix + name for name in fields)
                raise LvqaError(f"unknown key {shorten(f'{prefix}{key}')}; known: {known}")
            _refuse_unknown_keys(item, fields[key], f"{prefix}{key}")


def _explain(error: msgspec.ValidationError, value: Any, info: inspect.Type, name: str) -> str:
    """Return what msgspec found, with the value and what is allowed: it gives neither, but the path to it.

    The keys of a dict are not in that path, so the whole dict is named.
    """
    path = re.search(r"`\$([^`]*)`\Z", str(error))
    steps = re.findall(r"\.([^.\[]+)|\[(\d+)\]", path[1].partition("[...]")[0]) if path else []
    for key, index in steps:
        info, value = _inside(info, key or int(index)), value[key or int(index)]
        name += f"[{index}]" if index else f"{name and '.'}{key}"
    bare = _with_parts(info)
    if str(error).startswith("Object missing") and isinstance(bare, inspect.DataclassType | inspect.TypedDictType):
        missing = [field for field in bare.fields if field.required and field.encode_name not in value]
        names = [f"{name and f'{name}.'}{field.encode_name}" for field in missing]
        if len(missing) > 1:
            return f"{', '.join(names)} are missing"
        return f"{names[0]} is missing; it must be {_allowed(missing[0].type)}"
    return f"{name or 'the content'} must be {_allowed(info)}, got {in_yaml(value)}"


def _inside(info: inspect.Type, key: str | int) -> inspect.Type:
    """Return the type of what stands under a key of a mapping, or at an index of a list."""
    info = _with_parts(info)
    if isinstance(info, inspect.DataclassType | inspect.TypedDictType):
        return next(field.type for field in info.fields if field.name == key)
    if isinstance(info, inspect.TupleType):
        return info.item_types[int(key)]
    assert isinstance(info, inspect.ListType | inspect.VarTupleType), info
    return info.item_type


def _with_parts(info: inspect.Type) -> inspect.Type:
    """Return the type without its bounds; of several the one whose values have parts, if there is one."""
    if isinstance(info, inspect.Metadata):
        return _with_parts(info.type)
    if isinstance(info, inspect.UnionType):
        members = map(_with_parts, info.types)
        return next((member for member in members if isinstance(member, _CONTAINERS)), info)
    return info


_CONTAINERS = (
    *(inspect.DataclassType, inspect.TypedDictType),
    *(inspect.TupleType, inspect.VarTupleType, inspect.ListType),
)


_WORDS = {
    inspect.AnyType: "anything",
    inspect.NoneType: "null",
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a finite number",
    inspect.StrType: "text",
    inspect.CustomType: "a path",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.TupleType: "a list",
    inspect.DictType: "a mapping of keys to values",
    inspect.DataclassType: "a mapping of keys to values",
    inspect.TypedDictType: "a mapping of keys to values",
}


def _allowed(info: inspect.Type) -> str:
    """Return in words what a type allows."""
    if isinstance(info, inspect.Metadata):
        return str((info.extra_json_schema or {}).get("description") or _allowed(info.type))
    if isinstance(info, inspect.UnionType):
        return ", or ".join(map(_allowed, info.types))
    if isinstance(info, inspect.LiteralType):
        values = ", ".join(map(str, info.values))
        return values if len(info.values) == 1 else f"one of {values}"
    words = _WORDS[type(info)]
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        length = f" of {info.min_length} or more" if info.min_length else ""
        return f"{words}{length}, each item {_allowed(info.item_type)}"
    if isinstance(info, inspect.TupleType):
        return f"{words} of {len(info.item_types)}: {', '.join(map(_allowed, info.item_types))}"
    return words + _bounds(info) if isinstance(info, inspect.IntType | inspect.FloatType) else words


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    bounds = {"more than {}": info.gt, "{} or more": info.ge, "less than {}": info.lt, "{} or less": info.le}
    return "".join(f", {text.format(bound)}" for text, bound in bounds.items() if bound not in (None, _MAX, -_MAX))


# --- one value -------------------------------------------------------------------------------------------------------


def require(condition: bool, name: str, value: object, allowed: str, *, origin: str = "") -> None:
    """Raise LvqaError, which names the value, what is allowed and where it stood, unless the condition holds."""
    if not condition:
        raise LvqaError(f"{name} must be {allowed}, got {in_yaml(value)}" + (origin and f" ({origin})"))


def in_yaml(value: object) -> str:
    """Return a value as it is written in YAML, for a message."""
    return json.dumps(value) if value is None or isinstance(value, bool) else shorten(value)


def is_whole(value: object) -> bool:
    """Return whether the value is an int, numpy's too, and no bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def require_one_of(value: object, name: str, allowed: Mapping[str, object] | tuple[str, ...]) -> None:
    """Raise LvqaError for a value that is none of these words."""
    require(isinstance(value, str) and value in allowed, name, value, f"one of {', '.join(allowed)}")


def require_bool(value: object, name: str) -> None:
    """Raise LvqaError for a value that is neither true nor false."""
    require(isinstance(value, bool), name, value, "true or false")


def require_whole(value: object, name: str) -> None:
    """Raise LvqaError for a value that is not a whole number of at least 1."""
    require(is_whole(value) and value >= 1, name, value, _WHOLE)  # type: ignore[operator]


def require_number(value: object, name: str, least: float, most: float) -> None:
    """Raise LvqaError for a value that is not a number from `least` to `most`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    require(is_number, name, value, f"a number from {least:g} to {most:g}")


def require_positive(value: object, name: str) -> None:
    """Raise LvqaError for a value that is not a number above 0, or is beyond all sense."""
    require_number(value, name, 1e-9, 1e9)


def check_count(count: int, *, name: str = "frames") -> int:
    """Return the count, or raise LvqaError if it is not a whole number of at least 1."""
    require(isinstance(count, int) and not isinstance(count, bool) and count >= 1, name, count, _WHOLE)
    return count


def check_question(question: Question, *, is_search: bool = False, distinct_options: bool = False) -> None:
    """Raise LvqaError for a question that can't be asked. A voice needs no text, nor does the search for a picture.

    Args:
        question: The question. One of a benchmark, which has an id, is asked as it is published: its text may be empty,
            and its options too.
        is_search: Whether it is a query of a search.
        distinct_options: Whether two equal options are refused. Published benchmarks have some, and keep them.
    """
    if question.image is not None:
        read_image(question.image)
    if question.voice is not None:
        read_audio(question.voice)
    require_text(question.text, "the question")
    for option in option_texts(question.options):
        require_text(option, "an option")
    is_published = bool(question.id and question.options)
    if not (question.text.strip() or question.voice or is_published or (is_search and question.image)):
        raise LvqaError("the question is empty; ask something, for example: What happened after the door closed?")
    for text in itertools.chain.from_iterable(question.history):
        require_text(text, "an earlier turn")
    length = len(question.text) + sum(map(len, (*question.options, *itertools.chain(*question.history))))
    if length > MAX_QUESTION_CHARACTERS:
        raise LvqaError(f"the question has {length} characters with its options; allowed: {MAX_QUESTION_CHARACTERS}")
    _check_options(question, distinct=distinct_options)
    if question.schema is not None:
        if question.options:
            raise LvqaError("a question has options or a schema, not both: an answer is a letter or an object")
        check_schema(question.schema)


def _check_options(question: Question, *, distinct: bool) -> None:
    """Raise LvqaError for options that can't be asked about."""
    if question.options and not 2 <= len(question.options) <= len(LETTERS):
        raise LvqaError(f"a question has 2 to {len(LETTERS)} options, or none; got {len(question.options)}")
    if not question.id and any(not option.strip() for option in question.options):  # a published one may have some
        raise LvqaError(f"an option is empty: {shorten(list(question.options))}")
    texts = [option.strip() for option in question.options]
    if distinct and len(set(texts)) < len(texts):
        text = next(text for text in texts if texts.count(text) > 1)
        raise LvqaError(f"two options are equal: {shorten(text)}; the answer could not tell them apart")


def option_texts(options: Iterable[str]) -> tuple[str, ...]:
    """Return options as a question has them; one text is refused, not taken apart into its letters."""
    is_list = isinstance(options, Iterable) and not isinstance(options, str | bytes)
    require(is_list, "options", options, "a list of texts")
    return tuple(options)


def require_text(value: object, name: str) -> None:
    """Raise LvqaError for what is no Unicode text, as a tokenizer needs it."""
    if not isinstance(value, str):
        raise LvqaError(f"{name} must be text, got {shorten(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        place = f"at character {error.start + 1}: {shorten(value[error.start])}"
        raise LvqaError(f"{name} is no valid Unicode text (UTF-8), {place} in {shorten(value)}") from None
