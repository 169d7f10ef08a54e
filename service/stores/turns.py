"""Whose turn it is to compute what a key stands for, among processes that share a store: the contract, and the case of
one process alone. Nothing here knows what is computed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

Wait = Callable[[float], Awaitable[float | None]]
"""Returns after so many seconds or at the first news, with the progress (0 to 1) if the news are progress."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why the last one to try had no result: the kind of error and its text."""

    kind: str
    text: str


class Claim(Protocol):
    """The turn is ours, as long as `keep_alive` runs and nobody took it away."""

    def tell(self, fraction: float) -> None:
        """Progress for those who wait elsewhere. Cheap; goes out with the next renewal."""
        ...

    def keep_alive(self, revoked: Callable[[], None]) -> AbstractAsyncContextManager[None]:
        """Renews the turn while entered. `revoked` is called when somebody wants no result any more."""
        ...

    async def keep(self, value: bytes) -> bool:
        """Stores the value and ends the turn. False: not stored, since the turn had gone to somebody else meanwhile.
        Raises `StoreError` when the store cannot say."""
        ...

    async def fail(self, failed: Failed) -> None:
        """Ends the turn; others are told why for a few seconds, and then may try. Raises nothing."""
        ...

    async def release(self) -> None:
        """Ends the turn for another to take at once. Raises nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """`ours` carries a claim; `theirs` the progress of whoever computes; `stored`: the value is there already;
    `failed` says why; `revoked`: whoever waited need not wait any more."""

    kind: Literal["ours", "theirs", "stored", "failed", "revoked"]
    claim: Claim | None = None
    progress: float = 0.0
    failed: Failed | None = None


class Turns(Protocol):
    async def take(self, key: str, *, waited: bool) -> Turn:
        """`waited`: the caller has seen somebody else's turn on this key. Raises `StoreError`."""
        ...

    async def look(self, key: str) -> Turn | None:
        """The same without taking it; None when nobody has it. Never `ours`. Raises `StoreError`."""
        ...

    def news(self, key: str) -> AbstractAsyncContextManager[Wait]:
        """Entered by who waits for somebody else's turn to end."""
        ...

    async def revoke(self, key: str) -> None:
        """Whoever has the turn loses it, and a value that is still on its way is not stored. Raises `StoreError`."""
        ...


class Alone:
    """One process with a store of its own: it is always its turn."""

    def __init__(self, put: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._put = put

    async def take(self, key: str, *, waited: bool = False) -> Turn:
        return Turn("ours", OwnClaim(key, self._put))

    async def look(self, key: str) -> Turn | None:
        return None

    @asynccontextmanager
    async def news(self, key: str) -> AsyncIterator[Wait]:
        raise AssertionError("nobody else has the turn")
        yield  # type: ignore[unreachable]  # makes this a generator, as the contract wants it

    async def revoke(self, key: str) -> None:
        pass


class OwnClaim:
    def __init__(self, key: str, put: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._key = key
        self._put = put

    def tell(self, fraction: float) -> None:
        pass

    @asynccontextmanager
    async def keep_alive(self, revoked: Callable[[], None]) -> AsyncIterator[None]:
        yield

    async def keep(self, value: bytes) -> bool:
        await self._put(self._key, value)
        return True

    async def fail(self, failed: Failed) -> None:
        pass

    async def release(self) -> None:
        pass
