"""kill -9 at random moments, again and again on one data directory, amid uploads and images: is every acknowledged
label set there with its own classes, does it answer as before, and does the service heal by itself?"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.durability import Uploader, Uploads, missing
from benchmarks.process import ServiceProcess
from benchmarks.report import progress, write, write_header, write_table

PHOTO = Path(__file__).parents[1] / "examples" / "images" / "cat.jpg"
ALLOWED = {200, 429, 503, 504}
"""What a request may be answered with while the service starts, works, and is overloaded."""

SAMPLE = 100
"""Label sets of earlier rounds looked at in each round."""


@dataclass
class Answers:
    """Of the images that were sent: statuses by count, and rankings that were not those of before."""

    statuses: dict[int, int] = field(default_factory=dict)
    changed: int = 0
    known: dict[str, list[str]] = field(default_factory=dict)
    """The ranking of each label set by its adapted state. It never changes, whoever computed it."""

    @property
    def forbidden(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in ALLOWED)

    def note(self, answer: httpx.Response) -> None:
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        if answer.status_code != httpx.codes.OK:
            return
        found = answer.json()
        if found["adapted"]:
            ranking = [one["label"] for one in found["results"][0]["predictions"]]
            self.changed += self.known.setdefault(found["label_set"], ranking) != ranking


@contextmanager
def images_sent(service: ServiceProcess, label_sets: Sequence[str], answers: Answers) -> Iterator[None]:
    """One connection that classifies by label sets known from before, until the service is gone or the block ends."""
    over = threading.Event()
    body = PHOTO.read_bytes()

    def send() -> None:
        with httpx.Client(base_url=service.url, timeout=30.0, trust_env=False) as client:
            while label_sets and not over.is_set():
                one = random.choice(label_sets)
                try:
                    answers.note(
                        client.post(
                            "/v1/classify",
                            params={"label_set": one},
                            content=body,
                            headers={"Content-Type": "image/jpeg"},
                        )
                    )
                except httpx.TransportError:
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass
class Crashes:
    """One data directory through its crashes."""

    folder: Path
    longest: float
    connections: int = 4
    everything: Uploads = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    newest: Uploads = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    rounds: int = 0

    def crash(self) -> int:
        """Starts, checks what was acknowledged in the last round and some of all before, works, is killed. Returns how
        many were acknowledged."""
        self.rounds += 1
        with ServiceProcess(self.folder, {"log_level": "warning"}) as service:
            service.wait_ready()
            self.lost += missing(service, self._to_check())
            uploader = Uploader(service.url, salt=self.rounds * 100_000)
            known = list(self.everything)[-20:]
            with images_sent(service, known, self.answers), uploader.run(self.connections):
                time.sleep(random.uniform(0.0, self.longest))
                service.kill()
        self.newest = uploader.acknowledged
        self.everything |= self.newest
        return len(self.newest)

    def _to_check(self) -> Uploads:
        """Looking at everything in every round would take ever longer; the end does."""
        older = random.sample(sorted(self.everything), min(SAMPLE, len(self.everything)))
        return {one: self.everything[one] for one in older} | self.newest

    def recovered(self, seconds: float, sample: int = 20) -> tuple[int, int]:
        """Starts once more. How many label sets were watched, and how many of them became ready without anybody
        asking for it, within `seconds`. Everything ever acknowledged is looked at."""
        with ServiceProcess(self.folder, {"log_level": "warning"}) as service:
            service.wait_ready()
            self.lost += missing(service, self.everything)
            asked = sorted(self.everything)[:sample]  # in the order in which work is taken up again
            waiting, end = set(asked), time.monotonic() + seconds
            while waiting and time.monotonic() < end:
                waiting = {one for one in waiting if status(service, one) != "ready"}
                time.sleep(0.1)
            with images_sent(service, asked, self.answers):
                time.sleep(1.0)
            return len(asked), len(asked) - len(waiting)


def status(service: ServiceProcess, label_set: str) -> str:
    return str(service.client.get(f"/v1/label-sets/{label_set}").json()["status"])


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds of work before a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the choice of label sets")
    arguments = parser.parse_args(argv)
    write_header("Chaos", "chaos", argv)
    random.seed(arguments.seed)
    folder, began = Path(tempfile.mkdtemp(prefix="selftpt-")), time.monotonic()
    crashes = Crashes(folder, arguments.longest)
    try:
        for number in range(1, arguments.rounds + 1):
            count = crashes.crash()
            progress(f"round {number}: {count} acknowledged, {len(crashes.lost)} of all lost")
        asked, ready = crashes.recovered(seconds=120.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    answers = crashes.answers
    row = (crashes.rounds, len(crashes.everything), len(crashes.lost), sum(answers.statuses.values()),
           answers.forbidden, answers.changed, f"{ready} of {asked}")  # fmt: skip
    write_table(
        ("kills", "acknowledged", "lost", "images answered", "wrong status", "changed answers", "resumed"), [row]
    )
    write(
        f"Each round: start, ask for what the last one acknowledged and {SAMPLE} of all before, upload and classify, "
        f"kill -9 at a random moment; in the end, ask for everything. {time.monotonic() - began:.0f} s in all.\n"
    )
    return int(bool(crashes.lost or answers.forbidden or answers.changed or ready < asked))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
