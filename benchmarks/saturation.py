"""What is left of the model's own speed when many ask at once, and whether many label sets cost more than one: short
rounds in turns, until the medians of the ratios are certain enough."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.classify import IMAGES, RawLoop, raw_loop
from benchmarks.image_path import label_sets, load
from benchmarks.names import class_names
from benchmarks.process import running_service
from benchmarks.report import progress, write, write_header, write_table
from service.settings import Settings

CLASSES = 100
SETS = 64
RAW, AHEAD, ONE, MANY = "raw loop", "raw loop, decoding ahead on a second thread", "1 label set", f"{SETS} label sets"
FIRST = 5
"""Rounds before it is asked whether they are enough."""

Rates = dict[str, list[float]]


class Ahead:
    """The raw loop with the next batch decoded on another thread meanwhile: what two cores allow without a service."""

    def __init__(self, raw: RawLoop, image: bytes) -> None:
        self._raw, self._image = raw, image

    def rate(self, batch: int, seconds: float) -> float:
        with ThreadPoolExecutor(1) as decoder:
            return self._raw.pipelined([self._image] * batch, seconds, decoder)


def spread(ratios: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the median, by order statistics; infinite for fewer than six."""
    ordered, count = sorted(ratios), len(ratios)
    low = math.floor((count - 1.96 * math.sqrt(count)) / 2)
    if low < 0 or count < 6:
        return math.inf
    return (ordered[count - 1 - low] - ordered[low]) / 2


def ratios(rates: Rates, above: str, below: str) -> list[float]:
    return [one / other for one, other in zip(rates[above], rates[below], strict=True)]


COMPARED = ((ONE, RAW), (ONE, AHEAD), (MANY, ONE))


def rounds(ways: dict[str, Callable[[], float]], least: float, most: int) -> Iterator[Rates]:
    """Rates after each round. The order turns with every round, so that no way always follows the same other."""
    rates: Rates = defaultdict(list)
    names = list(ways)
    for number in range(most):
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            rates[name].append(ways[name]())
        yield rates
        if number >= FIRST and max(spread(ratios(rates, *pair)) for pair in COMPARED) <= least:
            return


def measure(arguments: argparse.Namespace) -> Rates:
    settings = {"engine": arguments.engine, "threads": "1"}
    image = IMAGES / "coffee.jpg"
    raw = raw_loop(class_names(CLASSES), [image], Settings(**settings))
    ahead = Ahead(raw, image.read_bytes())
    with running_service(**settings, embedding_bytes="0") as service:
        paths = label_sets(service, SETS)
        ways: dict[str, Callable[[], float]] = {
            RAW: lambda: raw.run(16, arguments.seconds)[0],
            AHEAD: lambda: ahead.rate(16, arguments.seconds),
            ONE: lambda: load(service, paths[:1], arguments.seconds).rate,
            MANY: lambda: load(service, paths, arguments.seconds).rate,
        }
        for way in ways.values():
            way()
        rates: Rates = {}
        for rates in rounds(ways, arguments.certain, arguments.most):
            count = len(rates[RAW])
            shown = ", ".join(f"{statistics.median(ratios(rates, *pair)):.3f}" for pair in COMPARED)
            progress(f"round {count} of at most {arguments.most}: {shown}")
    return rates


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement in a round")
    parser.add_argument(
        "--certain", type=float, default=0.015, help="half width of each ratio's 95 %% interval to end at"
    )
    parser.add_argument("--most", type=int, default=40, help="rounds")
    parser.add_argument("--engine", default="torch")
    arguments = parser.parse_args(argv)
    write_header("Saturation", "saturation", argv)
    rates = measure(arguments)
    rows = [(name, f"{statistics.median(found):.1f}") for name, found in rates.items()]
    write_table(("16 at once, one compute thread", "images/s"), sorted(rows))
    table = []
    for above, below in COMPARED:
        found = ratios(rates, above, below)
        table.append((f"{above} over {below}", f"{statistics.median(found):.3f}", f"± {spread(found):.3f}"))
    write_table(("ratio, median of rounds", "", "95 % interval"), table)
    write(f"{len(rates[RAW])} rounds of {arguments.seconds:g} s each way.\n")


if __name__ == "__main__":
    main(sys.argv[1:])
