"""Images by address: real TLS servers on this machine, never to be reached unless a test says they are public."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trustme

from adapters.clip import Backbone
from service.errors import ImageError, LimitExceeded, ServiceError
from service.security.addresses import Address, is_public
from service.security.fetch import Fetcher, NotFetched
from tests.service.served import photo, served

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
AUTHORITY = trustme.CA()
HOST = "pictures.example"


@dataclass
class Server:
    """Counts who connects; `answers` by path."""

    answers: dict[str, Answer] = field(default_factory=dict)
    connections: int = 0
    port: int = 0
    asked: list[bytes] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            await self.answers[head.split()[1].decode()](writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def answer(body: bytes, status: str = "200 OK", *fields: str, length: int | None = None) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *fields]
        writer.write("\r\n".join([*head, "Connection: close", "", ""]).encode() + body)

    return write


def moved(to: str, status: int = 302) -> Answer:
    return answer(b"", f"{status} Moved", f"Location: {to}")


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        await writer.drain()


async def dripping(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(**answers: Answer) -> AsyncIterator[Server]:
    server = Server({f"/{name}": one for name, one in answers.items()})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(HOST, "other.example", "127.0.0.1").configure_cert(context)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def fetcher(server: Server, *, names: dict[str, list[list[str]]] | None = None, **options: object) -> Fetcher:
    """Believes the test's certificates and takes the server's port. `names` gives what each further look-up finds."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    given = {name: list(turns) for name, turns in (names or {}).items()}

    async def resolve(host: str, port: int) -> Iterable[str]:
        turns = given.get(host, [["127.0.0.1"]])
        return turns.pop(0) if len(turns) > 1 else turns[0]

    chosen: dict[str, object] = {"max_bytes": 100_000, "seconds": 5.0, **options}
    return Fetcher(resolve=resolve, ports=frozenset({443, server.port}), context=context, **chosen)  # type: ignore[arg-type]  # options of Fetcher


def anything(address: Address) -> bool:
    return True


def url(server: Server, path: str, host: str = HOST) -> str:
    return f"https://{host}:{server.port}/{path}"


async def test_a_public_server_is_asked_politely_and_answers() -> None:
    data = photo()
    async with serving(a=answer(data), b=moved("/a"), c=moved("b")) as server:
        fetch = fetcher(server, allowed=anything)
        assert await fetch(url(server, "a")) == data
        assert await fetch(url(server, "c")) == data
    for head in server.asked:
        assert b"cookie" not in head.lower()
        assert b"authorization" not in head.lower()
        assert f"Host: {HOST}:{server.port}".encode() in head


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["169.254.169.254"], ["10.1.2.3"], []],
)
async def test_a_name_with_any_address_that_is_not_public_is_never_connected_to(found: list[str]) -> None:
    async with serving(a=answer(photo())) as server:
        with pytest.raises(NotFetched, match="no public address"):
            await fetcher(server, names={HOST: [found]})(url(server, "a"))
    assert server.connections == 0


async def test_a_name_that_changes_after_the_check_is_not_asked_again() -> None:
    """Rebinding: public when it is checked, this machine when it is connected to."""
    async with serving(a=answer(photo())) as server:
        seen: list[str] = []

        def allowed(address: Address) -> bool:
            seen.append(str(address))
            return True

        rebound = fetcher(server, names={HOST: [["127.0.0.1"], ["169.254.169.254"]]}, allowed=allowed)
        await rebound(url(server, "a"))
        assert seen == ["127.0.0.1"]
        with pytest.raises(NotFetched):  # the next fetch looks anew, and checks anew
            await fetcher(server, names={HOST: [["169.254.169.254"]]})(url(server, "a"))


@pytest.mark.parametrize(
    "to",
    ["http://pictures.example/a", "https://inside.example:{port}/a", "https://127.0.0.1:{port}/a", "file:///etc/passwd",
     "//inside.example:{port}/a", "https://user@pictures.example:{port}/a", "https://pictures.example:22/a", "gopher:x",
     ""],
)  # fmt: skip
async def test_redirects_are_checked_like_the_first_address(to: str) -> None:
    def public(address: Address) -> bool:
        return address == ipaddress.ip_address("127.0.0.1") and not to.startswith("https://127.")

    async with serving(a=answer(photo())) as server:
        server.answers["/start"] = moved(to.format(port=server.port))
        with pytest.raises(NotFetched):
            await fetcher(server, names={"inside.example": [["10.0.0.1"]]}, allowed=public)(url(server, "start"))
    assert server.connections <= 4  # the redirecting server itself, and never what it pointed to
    assert not any(b" /a " in head for head in server.asked)


async def test_redirects_end() -> None:
    async with serving(a=moved("/a")) as server:
        with pytest.raises(NotFetched, match="redirects"):
            await fetcher(server, allowed=anything)(url(server, "a"))
    assert server.connections == 4


@pytest.mark.parametrize(
    ("body", "error"),
    [(answer(bytes(200_000)), LimitExceeded), (answer(b"", length=10**12), LimitExceeded), (endless, LimitExceeded),
     (answer(b""), ImageError), (answer(b"x", "404 Not Found"), NotFetched), (answer(b"xx", length=9), NotFetched)],
)  # fmt: skip
async def test_answers_are_bounded_and_whole(body: Answer, error: type[ServiceError]) -> None:
    async with serving(a=body) as server:
        with pytest.raises(error):
            await fetcher(server, allowed=anything)(url(server, "a"))


async def test_a_server_that_drips_is_left() -> None:
    async with serving(a=dripping) as server:
        with pytest.raises(NotFetched, match=r"within 0\.3 s"):
            await fetcher(server, allowed=anything, seconds=0.3)(url(server, "a"))


async def test_certificates_are_checked_against_the_name() -> None:
    async with serving(a=answer(photo())) as server:
        with pytest.raises(NotFetched):
            await fetcher(server, allowed=anything)(url(server, "a", "wrong.example"))
        unknown_authority = Fetcher(9999, 5.0, ports=frozenset({server.port}), allowed=anything)
        with pytest.raises(NotFetched):
            await unknown_authority(url(server, "a", "127.0.0.1"))
    assert server.asked == []


async def test_only_listed_hosts_where_some_are_listed() -> None:
    async with serving(a=answer(photo())) as server:
        fetch = fetcher(server, allowed=anything, hosts=frozenset({"other.example"}))
        await fetch(url(server, "a", "other.example"))
        with pytest.raises(NotFetched, match="not fetched from this host"):
            await fetch(url(server, "a"))


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(a=answer(photo())) as server:
        for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert await fetcher(server, allowed=anything)(url(server, "a"))


@pytest.mark.parametrize(
    "text",
    ["http://pictures.example/a", "ftp://x/a", "https://", "https:///a", "https://pictures.example\\@127.0.0.1/",
     "https://a@b/", "https://pictures.example:0/", "https://pictures.example:x/", "https://pic tures.example/",
     "https://pictures.example/\r\nHost: x", "https://bücher.example/", "https://[::1%25eth0]/", "https://a..b/",
     "https://pictures.example:22/", "https://" + "a" * 3000 + ".example/", "https://127.0.0.1#@pictures.example/",
     "https://0x7f000001/", "https://2130706433/", "https://127.1/", "https://localhost/", "https://[::ffff:7f00:1]/"],
)  # fmt: skip
async def test_strange_addresses_are_refused(text: str) -> None:
    fetch = Fetcher(1000, 5.0)
    with pytest.raises(NotFetched):
        await fetch(text)


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.0.0.1", "192.0.2.1",
     "192.88.99.1", "192.168.0.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
     "::", "::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
     "64:ff9b:1::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "2001:0:808:808::1", "2001:0:7f00:1::f7f7:f7f7",
     "2001:db8::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "100::1", "5f00::1", "2a00::5efe:10.0.0.1",
     "fe80::1%eth0", "::ffff:8.8.8.8%eth0"],
)  # fmt: skip
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


async def test_addresses_are_not_fetched_unless_switched_on(tiny_backbone: Backbone) -> None:
    asked = {"images": ["https://pictures.example/a.png"], "labels": ["a", "b"], "adapter": "zero-shot"}
    for on, word in ((False, "by address"), (True, "no public address")):
        async with served(tiny_backbone, image_urls=on) as one:
            asked["images"] = ["https://127.0.0.1/a.png"]
            answer = await one.http.post("/v1/classify", json=asked)
            assert (answer.status_code, answer.json()["type"]) == (422, "/problems/image-not-fetched")
            assert word in answer.json()["detail"]
