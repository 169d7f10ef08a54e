"""What the science side may raise. Nothing here knows HTTP; the service maps these at its own seam.

AdapterError
├── LabelSetError      a label set that cannot be adapted as given (also a ValueError)
├── BackboneError      a backbone that cannot be loaded, or cannot do what a method asks of it
├── OptionError        an unknown method, or an option that does not exist or fit (also a ValueError)
├── SupportError       support images that are missing or do not fit the label set (also a ValueError)
├── StateError         bytes that are not a valid class state or checkpoint of this version
├── AdaptationDiverged non-finite loss or weights; the caller may fall back to zero-shot
└── AdaptationCancelled raised out of a progress callback to abandon an adaptation
"""

from __future__ import annotations


class AdapterError(Exception):
    """Root of everything that `adapters` raises on purpose."""


class LabelSetError(AdapterError, ValueError):
    """The label set is at fault. `field` names the offending place, e.g. `classes[3].name`."""

    def __init__(self, message: str, *, field: str = "classes") -> None:
        super().__init__(message)
        self.field = field


class BackboneError(AdapterError):
    """The backbone is missing, unreadable, or lacks what was asked of it."""


class OptionError(AdapterError, ValueError):
    """A method or option was asked for that does not exist. `field` names it."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class SupportError(AdapterError, ValueError):
    """A method needs support images that are not there, or those given do not fit. `field` names the place."""

    def __init__(self, message: str, *, field: str = "support") -> None:
        super().__init__(message)
        self.field = field


class StateError(AdapterError, ValueError):
    """Stored bytes are truncated, corrupted, or of another version."""


class AdaptationDiverged(AdapterError):
    """A loss or a weight became non-finite."""


class AdaptationCancelled(AdapterError):
    """The progress callback asked to stop."""
