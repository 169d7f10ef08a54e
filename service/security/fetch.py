"""Images by https address, where that is switched on: a client that can be sent to public servers only, and that reads
a bounded answer in bounded time. It knows no proxies, cookies or credentials."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urljoin, urlsplit

import anyio
import httpcore

from service.errors import ImageError, LimitExceeded, ServiceError, Unprocessable
from service.images.inputs import Upload
from service.security.addresses import Address, is_public

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 3
MAX_CHARACTERS = 2048
AT_ONCE = 16
PORT = 443
USER_AGENT = b"self-tpt-service"

PRINTABLE = re.compile(r"https://[!#-;=?-\[\]_a-z~]+", re.IGNORECASE)
"""No blanks, controls, quotes, angle brackets, backslashes or letters beyond ASCII: readers differ on those."""

HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

Fetch = Callable[[str], Awaitable[bytes]]
Resolve = Callable[[str, int], Awaitable[Iterable[str]]]


class NotFetched(Unprocessable):
    """Says why in words that tell nothing about networks that the caller cannot see."""

    slug = "image-not-fetched"
    title = "The image could not be fetched"


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    port: int
    path: str


async def resolve(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(slots=True, eq=False)
class Fetcher:
    """`hosts` are the only ones to fetch from; empty is any. The rest is for tests: how names become addresses, which
    addresses and ports may be used, and whose certificates are believed."""

    max_bytes: int
    seconds: float
    hosts: frozenset[str] = frozenset()
    resolve: Resolve = resolve
    allowed: Callable[[Address], bool] = is_public
    ports: frozenset[int] = frozenset({PORT})
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def __call__(self, url: str) -> bytes:
        """Raises `NotFetched`, `LimitExceeded` or `ImageError`."""
        with anyio.move_on_after(self.seconds):
            async with self._turns:
                return await self._follow(url)
        raise NotFetched(f"not there within {self.seconds:g} s")

    async def _follow(self, url: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._get(self.target(url))
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
        raise NotFetched(f"more than {MAX_REDIRECTS} redirects")

    def target(self, url: str) -> Target:
        """Raises `NotFetched` unless this is a plain https address of an allowed host."""
        if len(url) > MAX_CHARACTERS or not PRINTABLE.fullmatch(url):
            raise NotFetched("not an https address")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port or PORT
        except ValueError as error:
            raise NotFetched("not an https address") from error
        if "@" in parts.netloc:
            raise NotFetched("an address with a user name is not fetched")
        if not (HOST.fullmatch(host) or _is_address(host)) or port not in self.ports:
            raise NotFetched("the address names no host, or a port other than that of https")
        if self.hosts and host not in self.hosts:
            raise NotFetched("images are not fetched from this host")
        return Target(host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))

    async def _pinned(self, target: Target) -> str:
        """The address to connect to, looked up once. One that is not public spoils all: the name is not to be
        trusted."""
        try:
            found = [ipaddress.ip_address(one) for one in await self.resolve(target.host, target.port)]
        except (OSError, ValueError, UnicodeError):
            found = []
        if not found or not all(self.allowed(one) for one in found):
            raise NotFetched("the host has no public address")
        return str(found[0])

    async def _get(self, target: Target) -> bytes | str:
        """The body, or where a redirect leads to."""
        backend = _PinnedBackend(await self._pinned(target))
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self.seconds)
        headers = [(b"Accept", b"image/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", USER_AGENT)]
        url = httpcore.URL(scheme="https", host=target.host, port=target.port, target=target.path)
        try:
            async with (
                httpcore.AsyncConnectionPool(self.context, network_backend=backend, retries=0) as pool,
                pool.stream("GET", url, headers=headers, extensions={"timeout": timeouts}) as response,
            ):
                return await self._read(response)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ssl.SSLError, OSError) as e:
            raise NotFetched(f"the host did not give it ({type(e).__name__})") from e

    async def _read(self, response: httpcore.Response) -> bytes | str:
        fields = {name.lower(): value for name, value in response.headers}
        if response.status in REDIRECTS:
            return fields.get(b"location", b"").decode("latin-1")
        if response.status != 200:
            raise NotFetched(f"the host answered with status {response.status}")
        announced = fields.get(b"content-length", b"")
        self._check(int(announced) if announced.isdigit() else 0)
        parts, size = [], 0
        async for part in response.aiter_stream():
            size += len(part)
            self._check(size)
            parts.append(part)
        if not size:
            raise ImageError("the image is empty")
        return b"".join(parts)

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            raise LimitExceeded("max_image_bytes", self.max_bytes, actual=size)


async def no_fetch(url: str) -> bytes:
    """Where fetching is switched off, as it is by default."""
    raise NotFetched("images are not fetched by address here; send their bytes")


async def fetched(images: Sequence[Upload], fetch: Fetch) -> list[Upload]:
    """The same images with the bytes of those that are given by address, or the reason why there are none."""

    async def there(image: Upload) -> Upload:
        if image.url is None:
            return image
        try:
            return replace(image, data=await fetch(image.url), url=None)
        except ServiceError as error:
            return replace(image, error=error, url=None)

    return await asyncio.gather(*(there(image) for image in images))


class _PinnedBackend(httpcore.AnyIOBackend):
    """Connects to one address, whatever name it is asked for; TLS still checks the name."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return await super().connect_tcp(self._address, port, timeout, local_address, socket_options)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
