"""Ask the model what a question is about: one moment of the video, an order of events, or the whole video."""

from __future__ import annotations

from collections.abc import Sequence

from lvqa import prompts
from lvqa.costs import CostMeter, split_cost
from lvqa.models import Model
from lvqa.records import LETTERS, QUESTION_KINDS, Question, QuestionKind
from lvqa.session import VideoSession


def ask_kinds(
    model: Model, session: VideoSession, questions: Sequence[Question], meter: CostMeter
) -> list[QuestionKind | None]:
    """Ask the model what each question is about, by its text alone. A text is read once while the video is open.

    Args:
        model: The model that is asked.
        session: The open video, which remembers the replies.
        questions: Those that are new are asked about together.
        meter: Gets the stage "gate".

    Returns:
        The kind of each question; None for one without a text.
    """
    texts = [question.text for question in questions]
    known = {text: session.kinds[text] for text in texts if text in session.kinds}
    new = [text for text in dict.fromkeys(texts) if text and text not in known]
    if new:
        own = CostMeter(model.counts)
        with meter.stage("gate"), own.stage("gate"):
            letters = list(LETTERS[: len(QUESTION_KINDS)])
            logits = model.next_token_logits([(prompts.question_kind(text),) for text in new], letters)
            probabilities = logits.double().softmax(dim=1).tolist()
        for text, row, cost in zip(new, probabilities, split_cost(own.cost, len(new)), strict=True):
            known[text] = session.kinds[text] = QuestionKind(tuple(row), cost)
    return [known.get(text) for text in texts]
