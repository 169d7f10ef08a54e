"""From a URL to a client: one server, the master that Sentinels name, or a cluster; with or without TLS.

`redis://` `rediss://` (TLS) `unix://` name one server, `redis+sentinel://host:26379,host:26379/service/0` its
Sentinels, `redis+cluster://host:6379,host:6379` some nodes of a cluster; `rediss+...` is TLS for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisClusterException
from redis.maint_notifications import MaintNotificationsConfig

from service.errors import StoreError

CONNECTIONS = 16
"""Connections of one process to one server. A burst waits for a free one."""

_DEFAULT_PORT = {"sentinel": 26379, "cluster": 6379}

Client = Redis | RedisCluster


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """Where Redis is and how to get in. `timeout` holds for connecting and for every answer, in seconds. `ca_file`
    replaces the system's authorities, `cert_file` and `key_file` are this client's own. The user and password of the
    URL are those of the data servers; Sentinels have a password of their own."""

    url: str
    timeout: float = 0.25
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    sentinel_password: str | None = None


def open_client(access: RedisAccess) -> Client:
    """No connection is made yet. Raises `StoreError` when the URL or a file makes no sense."""
    try:
        scheme = access.url.split(":", 1)[0]
        _check_files(access, scheme.startswith("rediss"))
        if scheme.endswith("+sentinel"):
            return _by_sentinels(access)
        if scheme.endswith("+cluster"):
            return _of_cluster(access)
        return _of_server(access)
    except (ValueError, RedisClusterException) as error:
        raise StoreError(f"the Redis URL cannot be used: {error}") from error


async def close_client(client: Client) -> None:
    """Closes the connections to Sentinels as well, which the client of a master leaves open."""
    if isinstance(client, RedisCluster):
        await client.aclose()
        return
    await client.aclose(close_connection_pool=True)
    if isinstance(client.connection_pool, SentinelConnectionPool):
        await client.connection_pool.sentinel_manager.aclose()


def _of_server(access: RedisAccess) -> Redis:
    tls = _tls_files(access) if access.url.startswith("rediss://") else {}
    pool = BlockingConnectionPool.from_url(
        access.url, max_connections=CONNECTIONS, timeout=4 * access.timeout, **_patience(access), **tls
    )
    return Redis.from_pool(pool)


def _by_sentinels(access: RedisAccess) -> Redis:
    url = urlsplit(access.url)
    service, _, database = url.path.strip("/").partition("/")
    if not service or (database and not database.isdecimal()):
        raise ValueError("name the service, as in redis+sentinel://host:26379/service or .../service/0")
    tls = {"ssl": True, **_tls_files(access)} if url.scheme.startswith("rediss") else {}
    short = {"socket_timeout": access.timeout, "socket_connect_timeout": access.timeout}
    sentinels = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves its Sentinel without annotations
        _hosts(url, "sentinel"),
        sentinel_kwargs={**short, **tls, "password": access.sentinel_password, "retry": _one_retry()},
        **_patience(access),
        **_login(url),
        **tls,
    )
    master: Redis = sentinels.master_for(service, db=int(database or 0))
    return master


def _of_cluster(access: RedisAccess) -> RedisCluster:
    url = urlsplit(access.url)
    if url.path.strip("/"):
        raise ValueError("a cluster has no numbered databases")
    tls = {"ssl": True, **_tls_files(access)} if url.scheme.startswith("rediss") else {}
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in _hosts(url, "cluster")],
        max_connections=4 * CONNECTIONS,
        # Otherwise a node that is down stays the first that is asked for the layout.
        reinitialize_steps=1,
        **_patience(access),
        **_login(url),
        **tls,
    )


def _patience(access: RedisAccess) -> dict[str, Any]:
    return {
        "socket_timeout": access.timeout,
        "socket_connect_timeout": access.timeout,
        "retry": _one_retry(),
        # No health checks: against a server that accepts but does not answer, redis-py 8.1 checks while it connects
        # while it checks, without end. A dead connection shows at the next command, which is tried twice.
        "health_check_interval": 0,
        "decode_responses": False,
        "protocol": 3,
        # A managed service's announcements; plain servers answer the question for them with an error.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _one_retry() -> Retry:
    return Retry(ExponentialWithJitterBackoff(base=0.005, cap=0.05), retries=1)


def _login(url: SplitResult) -> dict[str, Any]:
    given = {"username": url.username, "password": url.password}
    return {name: unquote(value) for name, value in given.items() if value}


def _hosts(url: SplitResult, kind: str) -> list[tuple[str, int]]:
    """The servers of `host:port,host:port`; `urlsplit` itself knows one port only."""
    found = []
    for part in url.netloc.rpartition("@")[2].split(","):
        one = urlsplit(f"//{part}")
        if not one.hostname:
            raise ValueError("a host is missing")
        found.append((one.hostname, one.port or _DEFAULT_PORT[kind]))
    return found


def _tls_files(access: RedisAccess) -> Mapping[str, Any]:
    """The server's certificate and name are always checked."""
    files = {"ssl_ca_certs": access.ca_file, "ssl_certfile": access.cert_file, "ssl_keyfile": access.key_file}
    return {"ssl_cert_reqs": "required", **{name: str(path) for name, path in files.items() if path is not None}}


def _check_files(access: RedisAccess, tls: bool) -> None:
    for path in (access.ca_file, access.cert_file, access.key_file):
        if path is not None and not tls:
            raise ValueError("certificates are given, but its scheme is not rediss")
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
