"""Every benchmark with its defaults, one after the other, as one markdown text on standard output."""

from __future__ import annotations

from benchmarks import adaptation, classify, decode, durability, image_path, scaling, single_flight, stores


def main() -> None:
    for benchmark in (decode, image_path, classify, adaptation, single_flight, stores, scaling, durability):
        benchmark.main([])


if __name__ == "__main__":
    main()
