"""Images of any number through a classifier, in order: decoding and sending run ahead, what is held stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from service.client.calls import groups
from service.commands.display import notes, progress
from service.commands.journal import Journal, Line
from service.commands.result_files import write_whole, writer_for
from service.commands.walking import Found, walk, without
from service.schemas import ImageAnswer

AT_ONCE = 16
AHEAD = 4
"""Groups that are decoded or under way before their turn."""

Prepared = TypeVar("Prepared")
Given = TypeVar("Given")
Made = TypeVar("Made")


class BatchClassifier(Protocol[Prepared]):
    """`prepare` is called by several threads, `finish` by one. An image that cannot be read has its error."""

    @property
    def adapted(self) -> bool: ...

    @property
    def pending(self) -> bool:
        """Whether answers came before the prompts were adapted."""

    def prepare(self, files: Sequence[Path]) -> Prepared: ...

    def finish(self, prepared: Prepared) -> list[ImageAnswer]: ...

    def close(self) -> None: ...


def answers(classifier: BatchClassifier[Prepared], found: Iterable[Found]) -> Iterator[list[tuple[Found, ImageAnswer]]]:
    """Group by group, in order."""
    for group, prepared in ahead(lambda group: classifier.prepare([one.path for one in group]), groups(found, AT_ONCE)):
        yield list(zip(group, classifier.finish(prepared), strict=True))


def ahead(work: Callable[[Given], Made], items: Iterable[Given]) -> Iterator[tuple[Given, Made]]:
    """Each item with what `work` made of it, in order, a few of them ahead in threads."""
    waiting: deque[tuple[Given, Future[Made]]] = deque()
    threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="batch")
    try:
        for item in items:
            waiting.append((item, threads.submit(work, item)))
            if len(waiting) > AHEAD:
                first, made = waiting.popleft()
                yield first, made.result()
        for first, made in waiting:
            yield first, made.result()
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def run_batch(
    patterns: Sequence[str],
    out: Path,
    about: Mapping[str, object],
    opened: Callable[[], BatchClassifier[Prepared]],
) -> tuple[int, int]:
    """Writes `out` once all images are through; a run that was stopped goes on where it was. Returns how many images
    and how many errors `out` holds. `opened` is called only when there is something left to do."""
    write = writer_for(out)
    with Journal(out.with_name(f"{out.name}.parts"), about) as journal:
        left = without(walk(patterns), journal.done())
        first = next(left, None)
        if first is not None:
            work_off(chained(first, left), journal, opened())
        counts = [0, 0]
        write_whole(out, counted(journal.lines(), counts), write)
        journal.remove()
    return counts[0], counts[1]


def work_off(found: Iterable[Found], journal: Journal, classifier: BatchClassifier[Prepared]) -> None:
    done, finished = 0, False
    try:
        with progress(counted=True) as bars:
            task = bars.add_task("classifying", total=None)
            for group in answers(classifier, found):
                journal.add([line_of(one, answer, adapted=classifier.adapted) for one, answer in group])
                done += len(group)
                bars.update(task, completed=done)
        finished = True
    finally:
        classifier.close()
        if not finished:
            notes().print(f"stopped; {done} images of this run are kept, and the same command goes on after them")


def line_of(found: Found, answer: ImageAnswer, *, adapted: bool) -> Line:
    top = [(one.label, one.score) for one in answer.predictions or []]
    error = None if answer.error is None else answer.error.detail
    number, parts = found.place
    return {"place": [number, *parts], "image": str(found.path), "top": top, "adapted": adapted, "error": error}


def chained(first: Found, rest: Iterator[Found]) -> Iterator[Found]:
    yield first
    yield from rest


def counted(lines: Iterable[Line], counts: list[int]) -> Iterator[Line]:
    """Counts images and errors on the way."""
    for line in lines:
        counts[0] += 1
        counts[1] += line["error"] is not None
        yield line
