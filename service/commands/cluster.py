"""`selftpt serve --cluster`: front ends and workers as a Ray Serve application, on this machine or on a Ray cluster."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Literal

import click
from pydantic import ValidationError

from service.commands.display import notes
from service.errors import ServiceError
from service.settings import Settings

NAME = "selftpt"

RAY_DEFAULTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "20"}
"""Ray gives its proxy three times 5 s to start and then ends it, which is too short where replicas start beside it."""


def serve_cluster(settings: Settings, arguments: Sequence[str]) -> None:
    """Blocks until a signal. Raises `click.ClickException` for what keeps it from starting."""
    for name, value in RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415  # optional, and slow to import
        from ray import serve  # noqa: PLC0415
    except ImportError as error:
        raise click.ClickException("a cluster needs Ray: pip install 'self-tpt-service[cluster]'") from error
    from service.cluster.app import cluster_application  # noqa: PLC0415
    from service.cluster.shape import Shape  # noqa: PLC0415

    try:
        shape = Shape.model_validate(dict(argument.partition("=")[::2] for argument in arguments))
        target = cluster_application(settings, shape)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.ClickException(f"--shape {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except ServiceError as error:
        raise click.ClickException(error.detail) from error
    wishes = wishes_by_signal()
    # Joins the cluster that RAY_ADDRESS names; else one of this machine begins here and ends with this process.
    ray.init(namespace=NAME, include_dashboard=False)
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        serve.run(target, name=NAME)
        notes().print(f"\n  selftpt is ready on http://{settings.host}:{settings.port}\n", markup=False)
        for number in itertools.count(1):
            if wishes.get() == "end":
                break
            revised = shape.model_copy(update={"revision": f"{shape.revision}+{number}"})
            try:
                serve.run(cluster_application(settings, revised), name=NAME)
            except RuntimeError as error:  # the former replicas go on
                notes().print(f"the replicas were not replaced: {error}", markup=False)
            else:
                notes().print("all replicas were replaced", markup=False)
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]  # Ray leaves it without annotations
        ray.shutdown()


def wishes_by_signal() -> SimpleQueue[Literal["end", "replace"]]:
    """SIGINT and SIGTERM ask for the end, SIGHUP for new replicas in place of the running ones."""
    wishes: SimpleQueue[Literal["end", "replace"]] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: wishes.put("end"))
    signal.signal(signal.SIGHUP, lambda *_: wishes.put("replace"))
    return wishes
