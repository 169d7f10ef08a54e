"""The container files, as far as they can be checked without an engine: they parse, and keep what docs/ promise."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from service.settings import PREFIX, Settings

DOCKER = Path(__file__).resolve().parents[1] / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def test_both_targets_exist_and_the_last_is_the_cpu() -> None:
    stages = re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE)
    assert {"cpu", "cuda"} <= set(stages)
    assert stages[-1] == "cpu"


def test_every_stage_stands_on_an_image_or_an_earlier_stage() -> None:
    known: set[str] = set()
    for base, stage in re.findall(r"^FROM (\S+) AS (\S+)", DOCKERFILE, re.MULTILINE):
        assert base in known or ":" in base
        known.add(stage)
    assert set(re.findall(r"--from=(\S+)", DOCKERFILE)) <= known


def test_the_process_is_unprivileged_and_watched() -> None:
    assert re.search(r"^USER selftpt$", DOCKERFILE, re.MULTILINE)
    assert "/readyz" in DOCKERFILE.split("HEALTHCHECK", 1)[1]


def test_what_is_copied_exists() -> None:
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)]
    assert copied
    assert all((DOCKER.parent / source).exists() for sources in copied for source in sources)


def test_variables_are_settings() -> None:
    used = set(re.findall(rf"{PREFIX}([A-Z_]+)", DOCKERFILE + str(COMPOSE)))
    assert used
    assert used <= {name.upper() for name in Settings.model_fields}


def test_the_service_waits_for_a_durable_valkey() -> None:
    service, valkey = COMPOSE["services"]["selftpt"], COMPOSE["services"]["valkey"]
    assert service["depends_on"] == {"valkey": {"condition": "service_healthy"}}
    assert "--appendonly" in valkey["command"]
    assert "healthcheck" in valkey
