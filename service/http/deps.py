"""What routes ask for, as annotated dependencies. All are coroutines: FastAPI would run plain functions in threads, and
every change of threads costs a request more than they do."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Request

from service.core import Core
from service.http.prefer import preferred_wait
from service.readiness import ReadinessCheck
from service.runtime import Runtime
from service.security.callers import LOCAL, Caller


async def get_runtime(request: Request) -> Runtime:
    runtime = request.app.state.runtime
    assert isinstance(runtime, Runtime)
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]


async def get_readiness(request: Request) -> ReadinessCheck:
    check = request.app.state.readiness
    assert isinstance(check, ReadinessCheck)
    return check


ReadinessDep = Annotated[ReadinessCheck, Depends(get_readiness)]


async def get_caller(request: Request) -> Caller:
    caller = getattr(request.state, "caller", LOCAL)
    assert isinstance(caller, Caller)
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


async def client_of(caller: CallerDep) -> str:
    """Who pays for a request: whose turn it is when many wait, and whose limits it counts towards."""
    return caller.id


ClientDep = Annotated[str, Depends(client_of)]


async def get_core(runtime: RuntimeDep, caller: CallerDep) -> Core:
    """What the caller's tenant has. Raises `NotReady` until the backbone is loaded."""
    return runtime.core.of(caller.tenant)


CoreDep = Annotated[Core, Depends(get_core)]


async def get_wait(runtime: RuntimeDep, prefer: Annotated[str | None, Header()] = None) -> int:
    return preferred_wait(prefer, longest=runtime.settings.max_wait_seconds)


WaitDep = Annotated[int, Depends(get_wait)]


async def get_patience(
    milliseconds: Annotated[
        int | None, Header(alias="X-Request-Timeout-Ms", ge=1, description="What cannot be done by then is refused.")
    ] = None,
) -> float | None:
    """Seconds after which the caller has no use for the answer; None where it names none."""
    return None if milliseconds is None else milliseconds / 1000


PatienceDep = Annotated[float | None, Depends(get_patience)]
