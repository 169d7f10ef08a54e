"""Runs the servers one after the other, round by round, under the same load, and writes what each did."""

from __future__ import annotations

import sys

from benchmarks.peers.comparison import main

if __name__ == "__main__":
    main(sys.argv[1:])
