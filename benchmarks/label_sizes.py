"""How the label path grows: label sets of 10 to 20,000 names through the service (time to ready, memory, latency of a
classification), images while a set is being adapted, and what each trick of the text tower brings."""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.adaptation import MIB, adapt_once, forget_peak, memory
from benchmarks.names import class_names
from benchmarks.process import ServiceProcess, running_service
from benchmarks.report import progress, write, write_header, write_table
from benchmarks.text_tricks import Trick, tricks

PARTS = ("sizes", "overlap", "images", "tricks")
PHOTO = Path(__file__).parents[1] / "examples" / "images" / "cat.jpg"


def classify_seconds(service: ServiceProcess, label_set: str) -> float:
    began = time.perf_counter()
    answer = service.client.post(
        "/v1/classify", params={"label_set": label_set}, content=PHOTO.read_bytes(),
        headers={"Content-Type": "image/jpeg"},
    )  # fmt: skip
    answer.raise_for_status()
    return time.perf_counter() - began


def quantile(seconds: Sequence[float], share: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def size_row(service: ServiceProcess, count: int, salt: int, requests: int) -> tuple[str, ...]:
    names, cells = class_names(count, salt=salt), []
    for adapter in ("zero-shot", "self-tpt"):
        before = memory(service.pid, "VmRSS")
        forget_peak(service.pid)
        seconds, label_set = adapt_once(service, names, adapter)
        new = (memory(service.pid, "VmHWM") - before) / MIB
        cells += [f"{seconds:.2f}", f"{new:.0f}"]
        progress(f"{count} classes by {adapter}: ready in {seconds:.2f} s, {new:.0f} MiB")
    classify_seconds(service, label_set["id"])
    taken = [classify_seconds(service, label_set["id"]) for _ in range(requests)]
    return (f"{count:,}", *cells, f"{1000 * statistics.median(taken):.1f}", f"{1000 * quantile(taken, 0.99):.1f}")


def overlap(service: ServiceProcess, count: int) -> tuple[float, float, float]:
    """Seconds to ready of a zero-shot set, of one that shares nine tenths of its names, and the share of the second's
    prompts that passed the text tower."""
    names, others = class_names(count, salt=77), class_names(2 * count, salt=77)[-(count // 10) :]
    first, _ = adapt_once(service, names, "zero-shot")
    before = service.metric("selftpt_text_forwards_total")
    second, _ = adapt_once(service, [*names[count // 10 :], *others], "zero-shot")
    return first, second, (service.metric("selftpt_text_forwards_total") - before) / count


def latencies(service: ServiceProcess, label_set: str, until: Callable[[], bool], least: int) -> list[float]:
    """Of single requests one after the other with a pause, so that each meets the device as it is."""
    taken: list[float] = []
    while len(taken) < least or not until():
        taken.append(classify_seconds(service, label_set))
        time.sleep(0.003)
    return taken


def during_adaptation(service: ServiceProcess, count: int, rounds: int) -> list[tuple[str, ...]]:
    _, known = adapt_once(service, class_names(20, salt=501), "self-tpt")
    quiet, busy = [], []
    for number in range(rounds):
        quiet += latencies(service, known["id"], lambda: True, 150)
        names = class_names(count, salt=600 + number)
        thread = threading.Thread(target=adapt_once, args=(service, names, "self-tpt"))
        thread.start()
        busy += latencies(service, known["id"], lambda thread=thread: not thread.is_alive(), 0)  # type: ignore[misc]  # bound at once
        thread.join()
        progress(f"round {number + 1}: {len(quiet)} quiet, {len(busy)} busy requests")
    rows = []
    for name, taken in (("quiet", quiet), (f"while {count:,} classes are adapted", busy)):
        figures = (f"{1000 * quantile(taken, share):.1f}" for share in (0.5, 0.95, 0.99))
        rows.append((name, str(len(taken)), *figures))
    ratios = (f"{quantile(busy, share) / quantile(quiet, share):.2f}" for share in (0.5, 0.95, 0.99))
    return [*rows, ("ratio", "", *ratios)]


def trick_rows(found: Sequence[Trick]) -> list[tuple[str, ...]]:
    first = found[0].milliseconds
    return [
        (one.name, f"{one.milliseconds:.3f}", f"{first / one.milliseconds:.1f}", f"{one.cosine:.6f}",
         "" if one.agreement is None else f"{100 * one.agreement:.2f} %")
        for one in found
    ]  # fmt: skip


@contextmanager
def backbone_folder(name: str):  # type: ignore[no-untyped-def]  # a context manager of a path
    from benchmarks.random_vit import random_vit  # noqa: PLC0415  # imports open_clip

    with ExitStack() as stack:
        yield str(stack.enter_context(random_vit())) if name == "vit-b-16" else name


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000, 10_000, 20_000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--requests", type=int, default=60, help="classifications per label set")
    parser.add_argument("--during", type=int, default=1000, help="classes that are adapted while images come")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbones", nargs="+", default=["bundled", "vit-b-16"], help="for the tricks")
    parser.add_argument("--prompts", type=int, default=1000)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    arguments = parse(argv)
    write_header("Label path", "label_sizes", argv)
    shape = {"threads": "1", "engine": "torch", "embedding_bytes": "0"}
    if "sizes" in arguments.parts:
        with running_service(**shape, text_bytes="0", max_classes=str(max(arguments.classes))) as service:
            adapt_once(service, class_names(5), "self-tpt")
            rows = [size_row(service, count, 5, arguments.requests) for count in arguments.classes]
        columns = ("classes", "zero-shot ready, s", "new memory, MiB", "self-tpt ready, s", "new memory, MiB",
                   "classify p50, ms", "p99, ms")  # fmt: skip
        write_table(columns, rows)
    if "overlap" in arguments.parts:
        with running_service(threads="1", engine="torch") as service:
            first, second, share = overlap(service, 1000)
        write(f"1,000 names by zero-shot: {first:.2f} s; then 1,000 of which 900 are the same: {second:.2f} s, "
              f"{100 * share:.0f} % of the prompts encoded.\n")  # fmt: skip
    if "images" in arguments.parts:
        with running_service(**shape) as service:
            rows = during_adaptation(service, arguments.during, arguments.rounds)
        write_table(("single requests", "count", "p50, ms", "p95, ms", "p99, ms"), rows)
    for name in arguments.backbones if "tricks" in arguments.parts else ():
        with backbone_folder(name) as spec:
            found = tricks(spec, class_names(arguments.prompts, salt=3))
        write(f"Text tower of {name}, {arguments.prompts:,} prompts, one thread, process time:\n")
        write_table(("", "ms a prompt", "times", "least cosine", "top-1 on photos"), trick_rows(found))


if __name__ == "__main__":
    main(sys.argv[1:])
