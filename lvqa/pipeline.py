"""The main path, from a file and a question to an answer with its evidence. Read `LongVideoQA.answers` first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from lvqa.answering import Answerer
from lvqa.caveats import find_caveats
from lvqa.client import connect
from lvqa.components import check_settings, has_probabilities, load_components, selector_of
from lvqa.config import Config, SelectionConfig
from lvqa.costs import CostMeter, split_cost
from lvqa.gate import ask_kinds
from lvqa.index_steps import VideoIndexer
from lvqa.indexing import Progress, build_here, join_uses
from lvqa.looking import Looker
from lvqa.models import Model, device_name
from lvqa.opening import VideoOpener
from lvqa.platforms import require_unix
from lvqa.protocols import AnswerFormat
from lvqa.records import Answer, Candidate, IndexUse, Question, QuestionKind, Ranking, SearchResult, Video
from lvqa.retrieval import ClipRanker
from lvqa.retriever import Retriever
from lvqa.schema import schema_text
from lvqa.selection import Selector
from lvqa.session import IndexSpec, SessionCache, VideoSession
from lvqa.validation import check_count, check_question, option_texts

require_unix()


class LongVideoQA:
    """One model, untouched, that answers questions about long videos from the frames it chose itself.

    Threads may share it: each gets what it would get alone. Work ends early inside `lvqa.concurrency.stop_when`.

    >>> qa = LongVideoQA.load("tiny")
    >>> answer = qa.ask("video.mp4", "What happened after the door closed?", frames=32)
    >>> answer.text, answer.evidence[0].start_seconds
    """

    connect = staticmethod(connect)

    def __init__(
        self,
        model: Model,
        config: Config,
        *,
        progress: Progress | None = None,
        sessions: SessionCache | None = None,
        answer_format: AnswerFormat | None = None,
        on_selected: Callable[..., None] = lambda *_: None,
    ) -> None:
        """Make a pipeline over a loaded model; `LongVideoQA.load` loads it too.

        Args:
            model: The model that embeds, reranks and answers.
            config: All settings. LvqaError for a name that is not known.
            progress: Called as work goes on, with the stage, how many pairs are done, and of how many.
            sessions: The sessions that pipelines over one model share; see `with_config`.
            answer_format: How answers are asked for and read, where a protocol of a benchmark governs them.
            on_selected: Called before questions are answered, with the rankings and the frames of each.
        """
        check_settings(config)
        self.model, self.config = model, config
        self.videos = VideoOpener(model, config, sessions)
        self.store = self.videos.store
        self.progress, self._on_selected = progress or (lambda *_: None), on_selected
        specs = IndexSpec.of(model, config)
        self.spec = specs[0]
        self.indexers = [VideoIndexer(model, spec, config.video, self.open) for spec in specs]
        self.retriever = Retriever(model, config, videos=self.videos)
        self.ranker = ClipRanker(self.retriever, specs)
        self._find_caveats = partial(find_caveats, model, has_probabilities=has_probabilities(config))
        self._answer_format = answer_format
        answerer = Answerer.of(model, config.answer, answer_format, config.video.spoken, seed=config.seed)
        self._looker = Looker(model, answerer, config.answer, self._on_answer)

    @classmethod
    def load(
        cls,
        model: str | None = None,
        *,
        config: Config | None = None,
        overrides: Sequence[str] = (),
        progress: Progress | None = None,
        answer_format: AnswerFormat | None = None,
    ) -> LongVideoQA:
        """Load a model, and make a pipeline over it.

        Args:
            model: A hub id, a folder, or "tiny"; by default the configuration's.
            config: All settings; by default those of `load_config`.
            overrides: Settings as on the command line, "selection.frames=32".
            progress: As for the pipeline.
            answer_format: As for the pipeline.

        Raises:
            LvqaError: A setting or a model is not known. Settings are checked before the model is looked for.
        """
        loaded, config = load_components(model, config, overrides)
        return cls(loaded, config, progress=progress, answer_format=answer_format)

    def with_config(self, config: Config, **others: Any) -> LongVideoQA:
        """Return a pipeline with other settings over the same model; `others` replace its other arguments.

        Where the two see a video alike, they share its session: many settings can be compared on one video, and each of
        its frame pairs is decoded and encoded once.
        """
        own: dict[str, Any] = {"progress": self.progress, "sessions": self.videos.sessions}
        own |= {"answer_format": self._answer_format, **{k: v for k, v in others.items() if v is not None}}
        return LongVideoQA(self.model, config, **own)

    @property
    def device_name(self) -> str:
        """The name of the GPU that computes, or "cpu"."""
        return device_name(self.model.device)

    # --- what a user calls ------------------------------------------------------------------------------------------

    def ask(
        self,
        path: str | Path,
        question: str,
        *,
        options: Sequence[str] = (),
        image: str | Path | None = None,
        voice: str | Path | None = None,
        schema: Mapping[str, Any] | str | Path | None = None,
        frames: int | None = None,
        method: str | None = None,
    ) -> Answer:
        """Answer a question about a video, with the evidence.

        Args:
            path: The video file, here or at s3://, gs:// or https://.
            question: The question; it may be empty if `voice` asks it.
            options: Two to twenty possible answers, or none for a free answer.
            image: A picture that belongs to the question: it is searched for, and shown with the question.
            voice: A sound file that asks the question, for a model that hears.
            schema: A JSON schema that the answer fits, or a file of one: `Answer.parsed` is then its object.
            frames: How many frames the answer may use; by default the configuration's.
            method: How the frames are chosen; by default the configuration's.
        """
        query = Question(
            question,
            option_texts(options),
            image=None if image is None else Path(image),
            voice=None if voice is None else Path(voice),
            schema=None if schema is None else schema_text(schema),
        )
        check_question(query, distinct_options=True)
        return self.answer(path, query, frames=frames, method=method)

    def answer(
        self,
        path: str | Path | Video,
        question: Question,
        *,
        frames: int | None = None,
        method: str | None = None,
        selection: SelectionConfig | None = None,
    ) -> Answer:
        """Answer one question; see `answers`."""
        return self.answers(path, [question], frames=frames, method=method, selection=selection)[0]

    def answers(
        self,
        path: str | Path | Video,
        questions: Sequence[Question],
        *,
        frames: int | None = None,
        method: str | None = None,
        selection: SelectionConfig | None = None,
    ) -> list[Answer]:
        """Answer questions about a video: open it, index it once, rank its clips, select frames, answer.

        Answers that differ in `frames`, `method` and `selection` alone share the ranking, and the model's output if the
        same frames were selected.

        Args:
            path: The video file; one that was inspected is not inspected again.
            questions: They are ranked and answered together, in batches.
            frames: How many frames an answer may use; by default the configuration's.
            method: How the frames are chosen; by default the configuration's.
            selection: Settings of the selection, in place of the configuration's.

        Returns:
            An answer to each question, with an even share of what the call cost.
        """
        selection = selection or self.config.selection
        selection = dataclasses.replace(selection, frames=check_count(selection.frames if frames is None else frames))
        config = dataclasses.replace(self.config, selection=selection, method=method or self.config.method)
        selector = selector_of(config, config.method)
        for question in questions:
            check_question(question)
        if not questions:
            return []
        meter = CostMeter(self.model.counts)
        with ExitStack() as stack:
            with meter.stage("open"):
                session = stack.enter_context(self.open(path))
                for question in questions:
                    session.query_media(question)  # what can't be seen or heard is refused before indexing
            return self._answers(session, questions, selector, config, meter)

    def _answers(
        self, session: VideoSession, questions: Sequence[Question], selector: Selector, config: Config, meter: CostMeter
    ) -> list[Answer]:
        """Answer questions about an open video under settings with this call's method and selection."""
        use = self._index(session, meter) if selector.needs_scores or selector.needs_features else None
        rankings: Sequence[Ranking | None] = [None for _ in questions]
        kinds: Sequence[QuestionKind | None] = [None for _ in questions]
        if selector.needs_scores:
            rankings = self._rank(session, questions, meter)
        if config.selection.gate and selector.uses_kind:
            kinds = ask_kinds(self.model, session, questions, meter)
        with meter.stage("select"):
            known = zip(questions, rankings, kinds, strict=True)
            inputs = [self.ranker.selector_input(session, *of_one, selector, config.selection) for of_one in known]
        looks = self._looker.look(session, questions, selector, inputs, meter, partial(self._on_selected, rankings))
        call = {"model": self.model.name, "method": config.method, "index": use}
        seconds = {stage: total / len(questions) for stage, total in meter.seconds.items()}
        answers, shares = [], split_cost(meter.cost, len(questions))
        for i, (question, look) in enumerate(zip(questions, looks, strict=True)):
            own: dict[str, Any] = {
                **{"time_read": inputs[i].time_read, "question_kind": kinds[i], "looked_again": look.looked_again},
                **{"counts": shares[i].counts, "seconds": dict(seconds), "frames_budget": config.selection.frames},
            }
            caveats = self._find_caveats(session, use, rankings[i], look.selection, look.notes)
            answers.append(Answer.of(question, look.output, look.selection, rankings[i], caveats, **call, **own))
        return answers

    def index(self, path: str | Path, *, rebuild: bool = False) -> IndexUse:
        """Build the video's index, or find it in the store; with `rebuild` build it even if it is there."""
        with self.open(path) as session:
            return self._index(session, CostMeter(self.model.counts), rebuild=rebuild, must_save=True)

    def search(
        self, path: str | Path | Video, query: str | Question = "", *, image: str | Path | None = None, top: int = 5
    ) -> list[Candidate]:
        """Find the clips of a video that match a query best, reranked as the configuration says.

        Args:
            path: The video file.
            query: A text; it may be empty if `image` is searched for.
            image: A picture's file.
            top: How many clips to return, best first.
        """
        return list(self.search_video(path, _question(query, image), top=top).candidates)

    def search_video(self, path: str | Path | Video, question: Question, *, top: int = 5) -> SearchResult:
        """Search as `search` does. Returns what it finds with what a reader must know of it."""
        check_question(question, is_search=True)
        check_count(top, name="top")
        with self.open(path) as session:
            session.query_media(question)
            meter = CostMeter(self.model.counts)
            use = self._index(session, meter)
            (ranking,) = self._rank(session, [question], meter)
            return SearchResult(ranking.candidates[:top], self._find_caveats(session, use, ranking))

    # --- the stages -------------------------------------------------------------------------------------------------

    def inspect_video(self, path: str | Path) -> Video:
        """Inspect a file; what is known of it is kept in the store, so that it is hashed and read through once."""
        return self.videos.inspect(path)

    def open(self, path: str | Path | Video) -> AbstractContextManager[VideoSession]:
        """Open a video for the `with` block, alone in it; it stays open after that as far as the memory goes."""
        return self.videos.open(path)

    def _index(self, session: VideoSession, meter: CostMeter, **options: bool) -> IndexUse:
        return join_uses(build_here(self.store, self.indexers, session.video, meter, progress=self.progress, **options))

    def _rank(self, session: VideoSession, questions: Sequence[Question], meter: CostMeter) -> list[Ranking]:
        return self.ranker.rank(session, questions, meter=meter, on_pairs=partial(self.progress, "rerank"))

    def _on_answer(self, num_done: int, total: int) -> None:
        if total > 1:
            self.progress("answer", num_done, total)


def _question(query: str | Question, image: str | Path | None) -> Question:
    return query if isinstance(query, Question) else Question(query, image=None if image is None else Path(image))
