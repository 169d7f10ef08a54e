"""The decoded class states that are ready for scoring: least recently used leave first, bounded by bytes."""

from __future__ import annotations

from collections import OrderedDict

from adapters.base import ClassState


class HotStates:
    """Used on the event loop only. A state larger than the bound is kept alone rather than not at all."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._states: OrderedDict[str, ClassState] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, key: str) -> bool:
        return key in self._states

    def get(self, key: str) -> ClassState | None:
        state = self._states.get(key)
        if state is not None:
            self._states.move_to_end(key)
        return state

    def put(self, key: str, state: ClassState) -> None:
        self.drop(key)
        self._states[key] = state
        self.nbytes += state.nbytes
        while self.nbytes > self._max_bytes and len(self._states) > 1:
            self.drop(next(iter(self._states)))

    def drop(self, key: str) -> None:
        state = self._states.pop(key, None)
        if state is not None:
            self.nbytes -= state.nbytes
