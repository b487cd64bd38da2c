"""The order of a run's work: which questions are asked together, and which come next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lvqa.batches import even_batches
from lvqa.datasets import VideoTask
from lvqa.evaluation.rows import Key, Row
from lvqa.evaluation.settings import Arm
from lvqa.records import Question

Condition = tuple[str, int]
"""An arm and a budget."""

SECONDS_PER_QUESTION = 300.0
"""A question costs about as much as indexing so many seconds of video, for what takes longest."""
MAX_FAILED_ALONE = 2
"""A video of which nothing was answered is given up when so many of its questions have failed by themselves."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """Questions about a video that are asked together, and the conditions in which each lacks an answer.

    Questions that lack nothing are asked again with the others: what is in a batch with a question must not depend on
    where a run was interrupted, since sums are rounded by it.
    """

    video_id: str
    path: Path
    questions: tuple[Question, ...]
    lacking: tuple[tuple[Condition, ...], ...]
    """For each question the conditions."""
    next_path: Path | None = field(default=None, compare=False)
    """The video that its worker will probably get next, if these are the last questions on this one."""

    @property
    def num_answers(self) -> int:
        """How many answers are lacking."""
        return sum(map(len, self.lacking))

    def split(self) -> list[WorkItem]:
        """Return the questions that lack an answer as items of their own."""
        return [
            WorkItem(self.video_id, self.path, (question,), (lacking,))
            for question, lacking in zip(self.questions, self.lacking, strict=True)
            if lacking
        ]


@dataclass(frozen=True, slots=True)
class WorkResult:
    """The rows of a work item, the revision of the model that answered, and the device that it ran on."""

    rows: tuple[Row, ...]
    revision: str
    device: str


@dataclass(slots=True, eq=False)
class _VideoWork:
    """What is left of a video."""

    items: deque[WorkItem]
    has_answers: bool = False
    """Whether some of its questions were answered, so that its index is there."""
    num_failed_alone: int = 0
    next_work: _VideoWork | None = None
    """The video that the worker who has the last questions on this one gets next, unless another one needs it."""


class Schedule(Iterator[WorkItem]):
    """Says which questions come next, the longest video first, and those of one video after each other.

    The next questions on a video come as soon as the last ones are back, before any new video, so they go to the worker
    that has just become free and has it open. Once all videos are begun, a worker that has become free takes questions
    on a video that is with another one, as soon as its index is there. Where all that is left waits for an item that is
    out, the iterator ends, and goes on after `requeue`.
    """

    def __init__(
        self,
        tasks: Sequence[VideoTask],
        arms: Sequence[Arm],
        completed: set[Key],
        *,
        questions_at_once: int,
        seconds: Mapping[Path, float] | None = None,
    ) -> None:
        """Schedule all questions of the tasks that lack answers.

        Args:
            tasks: The videos and their questions.
            arms: The arms of the run.
            completed: The keys of rows that are there.
            questions_at_once: So many questions on a video are asked together at most.
            seconds: How long the videos are, by path; without it they come in their order.
        """
        conditions = [(arm.name, budget) for arm in arms for budget in arm.budgets]
        if seconds is not None:
            tasks = sorted(tasks, key=lambda task: -_effort(task, seconds.get(task.path, 0.0)))
        self._videos = {
            task.video_id: _VideoWork(items)
            for task in tasks
            if (items := _work_items(task, conditions, completed, questions_at_once))
        }
        self._new, self._returned = deque(self._videos.values()), deque[_VideoWork]()
        self._reserved: deque[_VideoWork] = deque()
        self._is_underway = False
        self.num_left = sum(item.num_answers for work in self._videos.values() for item in work.items)
        """How many answers are still lacking."""

    def __next__(self) -> WorkItem:
        """Return what can be answered now."""
        while self._returned:
            if (work := self._returned.popleft()).items:
                return self._take(work)
        for videos in (self._new, self._reserved):
            if videos:
                return self._take(videos.popleft())
        begun = [work for work in self._videos.values() if work.items and work.has_answers]
        if not begun:
            raise StopIteration
        return self._take(max(begun, key=lambda work: len(work.items)))

    def _take(self, work: _VideoWork) -> WorkItem:
        """Return the next item of a video. With the last one its worker is told which video it gets next.

        Not before something has come back: until then other workers wait for the videos that come next.
        """
        item = work.items.popleft()
        if work.items or not self._new or not self._is_underway:
            return item
        work.next_work = self._new.popleft()
        self._reserved.append(work.next_work)
        return replace(item, next_path=work.next_work.items[0].path)

    def requeue(self, item: WorkItem) -> None:
        """Note that the questions are answered; the next ones on their video can come."""
        work = self._videos[item.video_id]
        work.has_answers = True
        self._close(item, work)

    def postpone(self, item: WorkItem) -> None:
        """Note that the machines are to blame for what failed; the next questions on the video can come."""
        self._close(item, self._videos[item.video_id])

    def fail(self, item: WorkItem, *, by_video: bool) -> list[WorkItem]:
        """Note that an item failed, and return what has failed with it: nothing if its questions are asked alone now.

        Args:
            item: The item.
            by_video: Whether the video is to blame for sure, so that all that was to be asked about it has failed.
        """
        work = self._videos[item.video_id]
        if not by_video and len(item.questions) > 1:
            work.items.extendleft(reversed(item.split()))
            self._returned.append(work)
            return []
        work.num_failed_alone += 1
        is_given_up = by_video or (not work.has_answers and work.num_failed_alone >= MAX_FAILED_ALONE)
        left = list(work.items) if is_given_up else []
        if is_given_up:
            work.items.clear()
        self.num_left -= sum(other.num_answers for other in left)
        self._close(item, work)
        return [item, *left]

    def _close(self, item: WorkItem, work: _VideoWork) -> None:
        self.num_left -= item.num_answers
        self._returned.append(work)
        self._is_underway = True
        following = work.next_work
        if following is not None and following in self._reserved:
            self._reserved.remove(following)
            self._returned.append(following)


def _effort(task: VideoTask, seconds: float) -> float:
    """Return what a video costs with its questions, as seconds of video."""
    return seconds + SECONDS_PER_QUESTION * len(task.questions)


def _work_items(
    task: VideoTask, conditions: Sequence[Condition], completed: set[Key], questions_at_once: int
) -> deque[WorkItem]:
    """Return the questions on a video in batches, about equally large, but for those that lack nothing."""
    items: deque[WorkItem] = deque()
    for questions in even_batches(task.questions, questions_at_once):
        lacking = tuple(
            tuple(condition for condition in conditions if (task.video_id, question.id, *condition) not in completed)
            for question in questions
        )
        if any(lacking):
            items.append(WorkItem(task.video_id, task.path.absolute(), tuple(questions), lacking))
    return items
