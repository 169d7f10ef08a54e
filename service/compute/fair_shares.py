"""Who goes first when several clients wait, and how many places each may take. Pure arithmetic; keeps no work."""

from __future__ import annotations

from collections.abc import Mapping

RESERVE = 8
"""One part in so many is set aside on top of a limit, for clients that have less than the others."""

MANY_CLIENTS = 1024

LITTLE = 4
"""A client that holds less than one part in so many of an equal share holds little."""


def has_place(count: int, *, held: int, total: int, most: int) -> bool:
    """Whether a client that holds `held` of `total` taken places may take `count` more. One client alone gets `most`;
    with others, everybody gets less, and together they get up to an eighth more. A client may hold so many times what
    is free (dynamic thresholds, Choudhury and Hahne 1998), so there is always room for one that holds little."""
    return RESERVE * (total + count) + held + count <= (RESERVE + 1) * most


class FairOrder:
    """Start tags (start-time fair queueing, Goyal, Vin and Cheng 1996): work in the order of its tags gives clients
    that wait equal shares of the device, however much each has sent. One client alone is served in order of arrival."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: dict[str, float] = {}

    def tag(self, client: str, cost: float) -> float:
        start = max(self._now, self._ends.get(client, 0.0))
        self._ends[client] = start + cost
        return start

    def serve(self, tag: float) -> None:
        """Work with this tag is begun."""
        self._now = max(self._now, tag)
        if len(self._ends) > MANY_CLIENTS:
            self._ends = {client: end for client, end in self._ends.items() if end > self._now}


def uneven(held: Mapping[str, int]) -> bool:
    """Whether some client holds less than a quarter of an equal share."""
    return len(held) > 1 and LITTLE * len(held) * min(held.values()) < sum(held.values())


def share_ahead(waiting: Mapping[str, int], client: str, count: int) -> float:
    """The part of what waits, by client, that is served before the last of `count` more items of `client`."""
    total = sum(waiting.values())
    if not total:
        return 0.0
    own = waiting.get(client, 0)
    others = sum(min(theirs, own + count) for other, theirs in waiting.items() if other != client)
    return (own + others) / total
