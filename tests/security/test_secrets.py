"""No secrets in the repository: tracked files are searched for what keys and passwords look like."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 1 << 20

SECRETS = {
    "private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "key of this service": rb"stpt_[0-9a-f]{12}_[A-Za-z0-9_-]{43}",
    "AWS key": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": rb"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{60,}",
    "Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{20,}",
    "Google key": rb"\bAIza[0-9A-Za-z_-]{35}\b",
    "Hugging Face token": rb"\bhf_[A-Za-z0-9]{34}\b",
    "PyPI token": rb"\bpypi-[A-Za-z0-9_-]{60,}",
    "web token": rb"\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}",
    "password in an address": rb"\b[a-z+]{3,12}://[^\s:/@'\"<>{}$]+:(?!hunter2@|secret@|password@)[^\s@/'\"<>{}$]{6,}@",
}
"""The passwords that tests and pages use on purpose are named."""


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    found = [ROOT / name for name in names] or [path for path in ROOT.rglob("*") if ".git" not in path.parts]
    return [path for path in found if path.is_file() and path.stat().st_size <= LARGEST]


@pytest.mark.parametrize("kind", SECRETS)
def test_there_is_no(kind: str) -> None:
    pattern = re.compile(SECRETS[kind])
    assert [str(path.relative_to(ROOT)) for path in tracked() if pattern.search(path.read_bytes())] == []


def test_each_pattern_finds_what_it_is_for() -> None:
    """Put together here, so that this file is not a finding itself."""
    examples = {
        "private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
        "key of this service": "stpt_" + "0" * 12 + "_" + "a" * 43,
        "AWS key": "AKIA" + "A" * 16,
        "GitHub token": "ghp_" + "a" * 36,
        "Slack token": "xoxb-" + "1" * 24,
        "Google key": "AIza" + "a" * 35,
        "Hugging Face token": "hf_" + "a" * 34,
        "PyPI token": "pypi-" + "a" * 70,
        "web token": ".".join(["eyJ" + "a" * 24, "eyJ" + "b" * 24, "c" * 24]),
        "password in an address": "redis://user:" + "correcthorse" + "@host",
    }
    assert all(re.search(SECRETS[kind], text.encode()) for kind, text in examples.items())
