"""Every benchmark with its defaults, one after the other, as one markdown text on standard output."""

from __future__ import annotations

from benchmarks import adaptation, classify, durability, single_flight


def main() -> None:
    for benchmark in (classify, adaptation, single_flight, durability):
        benchmark.main([])


if __name__ == "__main__":
    main()
