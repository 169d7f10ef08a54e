"""The rules that keep the code base readable, held by reading the source: imports, sizes, and who may do what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_NESTING = 3
LOOP_EDGES = 5
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def functions(path: Path) -> Iterator[FunctionNode]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, FunctionNode))


def calls(path: Path) -> Iterator[str]:
    return (ast.unparse(node.func) for node in ast.walk(parsed(path)) if isinstance(node, ast.Call))


def importers_of(package: str, *folders: str) -> set[str]:
    return {name_of(path) for path in sources(*folders) for module in imports(path) if module.split(".")[0] == package}


def depth(node: ast.AST, level: int = 0) -> int:
    """Deepest nesting of blocks below `node`; an `elif` counts as its `if`, a nested function starts anew."""
    deepest = level
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, FunctionNode):
                continue
            is_elif = isinstance(node, ast.If) and field == "orelse" and len(node.orelse) == 1
            step = isinstance(child, BLOCKS) and not (is_elif and isinstance(child, ast.If))
            deepest = max(deepest, depth(child, level + step))
    return deepest


everywhere = pytest.mark.parametrize("path", sources("adapters", "service", "benchmarks"), ids=name_of)


def test_adapters_never_import_the_service_or_anything_of_http() -> None:
    for package in ("service", "fastapi", "starlette", "uvicorn", "redis", "asyncio", "httpx"):
        assert importers_of(package, "adapters") == set(), package


def test_open_clip_has_a_single_importer() -> None:
    found = importers_of("open_clip", "adapters", "service")
    assert {path for path in found if not path.startswith("adapters/training/")} <= {"adapters/clip.py"}


def test_the_service_does_not_reach_into_offline_code() -> None:
    offline = ("adapters.training", "adapters.evaluation")
    found = {name_of(path) for path in sources("service") for module in imports(path) if module.startswith(offline)}
    assert found <= {f"service/commands/{name}.py" for name in ("train", "evaluate", "compare")} | {
        "service/evaluation.py",  # the metrics, which are arithmetic
    }


def test_the_environment_is_read_in_one_place() -> None:
    readers = {
        name_of(path)
        for path in sources("adapters", "service")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}
    }
    assert {path for path in readers if not path.startswith("adapters/training/")} <= {
        "service/settings.py",
        "service/process/openmp.py",  # writes one variable of the native thread pool, reads none of ours
        "service/commands/cluster.py",  # switches Ray's usage statistics off, which has no other switch
    }


def test_the_service_is_wired_in_one_place() -> None:
    builders = {name_of(path) for path in sources("service") if "FastAPI" in set(calls(path))}
    assert builders <= {"service/app.py"}


def test_broad_excepts_stand_only_where_they_are_expected() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in sources("adapters", "service")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"})
    ]
    assert len(found) <= LOOP_EDGES, found


def test_no_tests_patch_what_they_test() -> None:
    assert importers_of("unittest", "tests") == set()


@everywhere
def test_a_file_fits_into_one_reading(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    assert path.stem not in VAGUE_NAMES


@everywhere
def test_functions_are_short_and_flat(path: Path) -> None:
    for function in functions(path):
        where = f"{function.name}, line {function.lineno}"
        assert (function.end_lineno or 0) - function.lineno < MAX_FUNCTION_LINES, where
        assert depth(function) <= MAX_NESTING, where


@everywhere
def test_a_module_says_what_it_is(path: Path) -> None:
    text = ast.get_docstring(parsed(path))
    assert text
    assert text.strip().endswith((".", ")", "`", ":")) or "\n" in text


@everywhere
def test_imports_are_absolute_and_nothing_prints(path: Path) -> None:
    assert not [module for module in imports(path) if module.startswith(".")]
    assert "print" not in set(calls(path))


@everywhere
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    forbidden = {"eval", "exec", "pickle.load", "pickle.loads"}
    assert not forbidden & set(calls(path))
    # benchmarks may time what others' serialisation costs
    assert path.is_relative_to(ROOT / "benchmarks") or "pickle" not in set(imports(path))
