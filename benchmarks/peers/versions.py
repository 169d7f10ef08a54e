"""Which Python runs the peers, and what is installed there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
"""Where `make peers` puts them."""

_ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def peers_python() -> str:
    return str(PEERS) if PEERS.exists() else sys.executable


@dataclass(frozen=True, slots=True)
class Interpreter:
    path: str

    def versions(self, packages: Sequence[str]) -> dict[str, str]:
        """Of those that are installed."""
        done = subprocess.run([self.path, "-c", _ASK, *packages], capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found
