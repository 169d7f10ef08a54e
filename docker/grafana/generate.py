"""Writes the dashboards: python docker/grafana/generate.py [FOLDER]. Needs nothing but Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # these files are no package: `docker` is the name of somebody else's

from label_sets import label_sets  # noqa: E402
from latency import latency  # noqa: E402


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for made in (latency(), label_sets()):
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{made['uid']}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "dashboards")
