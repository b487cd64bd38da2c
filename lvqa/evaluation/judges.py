"""Judges of open answers: whether a text says what was expected.

`exact` and `normalised` compare texts. A model judges behind an OpenAI-compatible URL; as long as it can't be reached,
an answer is not judged, which is neither correct nor wrong.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import string
import threading
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from lvqa import prompts
from lvqa.evaluation.rows import Row
from lvqa.evaluation.settings import DEFAULT_KEY_VARIABLE, Judge, JudgeModel
from lvqa.records import LvqaError, shorten

_log = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 30.0
"""A request is repeated after so long at most, whatever the server asks for."""
MAX_REPLY_BYTES = 1 << 20
_TRANSIENT = {408, 409, 425, 429}
"""These errors of HTTP, and those from 500 on, may be gone when the request is repeated."""
_OF_THE_QUESTION = {400, 413, 422}
"""These errors of HTTP are about what was sent: the next question may have none."""


class JudgeUnavailableError(LvqaError):
    """The judge can't be reached, or refuses all requests."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of an answer."""

    is_correct: bool | None
    """None if its reply is neither yes nor no."""
    text: str
    """Its reply, or the error in place of one."""


def name_of(judge: Judge) -> str:
    """Return what rows and tables call a judge."""
    return judge.model if isinstance(judge, JudgeModel) else judge


def with_judge(row: Row, judge: Judge | None) -> Row:
    """Return the row of an open question with the name of its judge, and with the verdict of one that compares texts.

    A row of a question with options is returned as it is.
    """
    if judge is None or row["options"]:
        return row
    row = {**row, "judge": name_of(judge)}
    if isinstance(judge, JudgeModel) or row["error"] is not None:
        return row
    return {**row, "judged_correct": COMPARE[judge](row["text"], row["target"] or "")}


def normalised(text: str) -> str:
    """Return a text without what makes no difference: case, punctuation, articles, spaces, forms of one character."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(" " if _is_punctuation(character) else character for character in folded)
    return " ".join(word for word in bare.split() if word not in ("a", "an", "the"))


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


COMPARE: Mapping[str, Callable[[str, str], bool]] = {
    "exact": lambda text, expected: text.strip() == expected.strip(),
    "normalised": lambda text, expected: normalised(text) == normalised(expected),
}
"""The judges that compare texts."""


# --- a model as the judge --------------------------------------------------------------------------------------------


def check_judge(judge: JudgeModel) -> None:
    """Raise LvqaError if the environment lacks the key that the judge was given by name."""
    variable = judge.key_variable
    if variable not in (None, DEFAULT_KEY_VARIABLE) and not os.environ.get(variable):
        raise LvqaError(f"benchmark.judge.key_variable names {variable}, and the environment has no such variable")


def ask_judge(judge: JudgeModel, row: Row, *, wait: Callable[[float], object] = time.sleep) -> Verdict:
    """Ask a model whether the answer of a row says what was expected.

    Args:
        judge: The model, and how it is asked.
        row: The row of an open question.
        wait: Waits for so many seconds before a request is repeated.

    Raises:
        JudgeUnavailableError: It can't be reached in so many attempts, or refuses all requests.
    """
    system, user = prompts.judge(row["question"], row["target"] or "", row["text"])
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    body = json.dumps({"model": judge.model, "messages": messages, **judge.request}).encode()
    for attempt in range(1, judge.attempts + 1):
        try:
            reply = _post(judge, body)
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}: {shorten(_content(error))}"
            if error.code in _OF_THE_QUESTION:
                return Verdict(None, problem)
            seconds = _retry_after(error) or _backoff(attempt)
            if error.code not in _TRANSIENT and error.code < 500:
                break
        except (OSError, http.client.HTTPException, ValueError) as error:  # the last: a key that is no header
            problem, seconds = str(getattr(error, "reason", None) or error or type(error).__name__), _backoff(attempt)
        else:
            return Verdict(read_verdict(reply), reply)
        if attempt < judge.attempts:
            wait(seconds)
    raise JudgeUnavailableError(
        f"the judge {judge.model} at {judge.url} can't be asked: {problem}{_advice(judge, problem)}"
    )


def read_verdict(reply: str) -> bool | None:
    """Return whether a judge says yes, or None if it says both or neither. What it thinks first does not count."""
    words = set(re.findall(r"\b(yes|no)\b", reply.rpartition("</think>")[2].lower()))
    return "yes" in words if len(words) == 1 else None


def _post(judge: JudgeModel, body: bytes) -> str:
    """Return the text of the reply, or what was sent in place of one."""
    url = judge.url.rstrip("/")
    if not url.endswith("/chat/completions"):
        url += "/chat/completions"
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(judge.key_variable or "", ""):
        headers["Authorization"] = f"Bearer {key.strip()}"
    request = urllib.request.Request(url, body, headers, method="POST")
    with _OPENER.open(request, timeout=judge.timeout_seconds) as response:
        content: bytes = response.read(MAX_REPLY_BYTES)
    with contextlib.suppress(ValueError, LookupError, TypeError):
        return str(json.loads(content)["choices"][0]["message"]["content"] or "")
    return content.decode(errors="replace")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which would take the key to another server."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request, so that the redirect is an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _content(error: urllib.error.HTTPError) -> str:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return error.read(MAX_REPLY_BYTES).decode(errors="replace").strip() or str(error.reason)
    return str(error.reason)


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Return for how many seconds the server asks to wait, if it does."""
    text = error.headers.get("Retry-After", "")
    return min(float(text), MAX_WAIT_SECONDS) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", text) else None


def _backoff(attempt: int) -> float:
    return min(2.0 ** (attempt - 1), MAX_WAIT_SECONDS)


def _advice(judge: JudgeModel, problem: str) -> str:
    is_about_key = problem.startswith(("HTTP 401", "HTTP 403"))
    return f" (the key is read from the environment's {judge.key_variable})" if is_about_key else ""


def judge_rows(judge: JudgeModel, rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows with what a model says of them, as it says it, several at a time.

    The judge is asked no more once it can't be reached; an error that is about one question stops no other.
    """
    is_down = threading.Event()

    def ask(row: Row) -> Verdict | None:
        return None if is_down.is_set() else ask_judge(judge, row, wait=is_down.wait)

    # Those that it was asked about before come last, so that one that it can't judge is in nobody's way.
    rows = sorted(rows, key=lambda row: row["judge_text"] is not None)
    with ThreadPoolExecutor(judge.parallel) as pool:
        tasks = {pool.submit(ask, row): row for row in rows}
        try:
            for task in as_completed(tasks):
                try:
                    verdict = task.result()
                except JudgeUnavailableError as error:
                    if not is_down.is_set():
                        _log.warning("%s", error)
                    is_down.set()
                else:
                    if verdict is not None:
                        yield {**tasks[task], "judged_correct": verdict.is_correct, "judge_text": verdict.text}
        finally:
            is_down.set()  # for what is left, if this ends early
