"""The whole service on a disk that is full, read-only, locked by somebody else or damaged: clear refusals, nothing that
was acknowledged is lost, and label sets that are known go on answering."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from adapters.clip import Backbone
from service.errors import StoreError
from service.settings import Settings
from service.stores import Stores, open_stores
from service.stores.sqlite import SqliteFile
from tests.service.served import Served, photo, served

PNG = {"content-type": "image/png"}
SPACE = 2 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of two MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted("-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(folder)):
        pytest.skip("only who may mount can make a small file system")  # a right, so nothing that CI could install
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mounted(*arguments: str) -> bool:
    return os.geteuid() == 0 and _mount(*arguments) == 0


def _mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode


@asynccontextmanager
async def site_on(backbone: Backbone, stores: Stores) -> AsyncIterator[Served]:
    async with served(backbone, slow=False, stores=stores, adapter="zero-shot") as site:
        yield site


def stores_in(folder: Path) -> Stores:
    """As the settings make them, but impatient with who locks the file."""
    file = SqliteFile(folder / "selftpt.sqlite3", busy_seconds=0.05)
    return Stores(file.store("records"), file.store("states", ttl=1e6), "sqlite")


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


async def upload(site: Served, number: int, classes: int = 300) -> str | None:
    """Its id if it was acknowledged."""
    names = [f"thing {number} {one}" for one in range(classes)]
    answer = await site.http.post("/v1/label-sets", json={"classes": names})
    if answer.is_success:
        return str(answer.json()["id"])
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/store-unavailable")
    assert "/disk" not in answer.text
    return None


async def answers(site: Served, one: str) -> bool:
    answer = await site.http.post(f"/v1/classify?label_set={one}", content=photo(), headers=PNG)
    return answer.status_code == 200


async def test_a_full_disk_refuses_uploads_keeps_what_it_acknowledged_and_is_used_again(
    tiny_backbone: Backbone, small_disk: Path
) -> None:
    ballast = small_disk / "ballast"
    async with site_on(tiny_backbone, stores_in(small_disk)) as site:
        acknowledged = [one for number in range(5) if (one := await upload(site, number)) is not None]
        assert await answers(site, acknowledged[0])
        fill(ballast)
        refused = [await upload(site, 100 + number) for number in range(20)]
        assert refused[-1] is None
        acknowledged += [one for one in refused if one is not None]
        assert await answers(site, acknowledged[0])
        inline = await site.http.post("/v1/classify?labels=fork,spoon", content=photo(), headers=PNG)
        assert inline.status_code == 200
        ballast.unlink()
        again = await upload(site, 200)
        assert again is not None
    async with site_on(tiny_backbone, stores_in(small_disk)) as site:
        for one in [*acknowledged, again]:
            assert (await site.http.get(f"/v1/label-sets/{one}")).status_code == 200
            assert await answers(site, one)


def test_a_read_only_disk_is_refused_at_the_start_by_name(small_disk: Path) -> None:
    assert mounted("-o", "remount,ro", str(small_disk))
    with pytest.raises(StoreError, match=r"selftpt\.sqlite3"):
        open_stores(Settings(data_dir=small_disk))


async def test_a_locked_file_refuses_uploads_and_known_label_sets_go_on(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    async with site_on(tiny_backbone, stores_in(tmp_path)) as site:
        one = await upload(site, 1)
        assert one is not None
        intruder = sqlite3.connect(tmp_path / "selftpt.sqlite3", isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        assert await upload(site, 2) is None
        assert await answers(site, one)
        intruder.close()
        assert await upload(site, 2) is not None


async def test_a_file_damaged_while_it_is_used_gives_refusals_and_no_wrong_answers(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    async with site_on(tiny_backbone, stores_in(tmp_path)) as site:
        before = [one for number in range(8) if (one := await upload(site, number)) is not None]
        assert await answers(site, before[0])
        intruder = sqlite3.connect(tmp_path / "selftpt.sqlite3")
        intruder.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        intruder.close()
        content = bytearray((tmp_path / "selftpt.sqlite3").read_bytes())
        content[4096:] = b"\x5a" * (len(content) - 4096)
        (tmp_path / "selftpt.sqlite3").write_bytes(content)
        assert await answers(site, before[0])
        site.runtime.core.label_sets.records._memory.clear()
        for one in before:
            status = (await site.http.get(f"/v1/label-sets/{one}")).status_code
            assert status in {200, 503}
        assert (await site.http.get("/livez")).status_code == 200
