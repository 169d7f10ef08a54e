"""From a list of methods as it is typed to the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_type_hints

from adapters.base import InfoValue
from adapters.errors import OptionError
from adapters.evaluation.stored import Memo, Stored
from adapters.evaluation.variants import EIGHTY, SINGLE, Contender, Ensemble, Variant
from adapters.registry import METHODS

CE_ENSEMBLE = "coop-x4"
"""The control of four CE-trained prompts, as it is written in a list of methods."""
BITS = tuple("12345678")


def parse_contenders(text: str) -> list[Contender]:
    """`coop,quantized:bits=4` to rows: names divided by commas, options after colons. `coop@4` is coop whose prompts
    are stored at 4 bits, `coop-x4` the ensemble of four CE-trained prompts. Raises `OptionError`."""
    rows: list[Contender] = []
    memos: dict[str, Memo] = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        name, *pairs = piece.split(":")
        member, at, bits = name.partition("@")
        if at:
            rows.append(_stored(Variant(":".join([member, *pairs]), member, _parsed(member, pairs)), bits, memos))
        elif name == CE_ENSEMBLE:
            rows.append(Ensemble("four CE prompts, ensembled", Variant("coop", "coop", _parsed("coop", pairs))))
        else:
            rows.append(Variant(piece, name, _parsed(name, pairs)))
    if not rows:
        raise OptionError("no method is named", field="methods")
    return rows


def _stored(member: Variant, bits: str, memos: dict[str, Memo]) -> Stored:
    if bits not in BITS:
        raise OptionError(f"{member.label}@{bits}: prompts are stored at {BITS[0]} to {BITS[-1]} bits", field="methods")
    return Stored(member, int(bits), memos.setdefault(member.label, {}))


def with_controls(rows: Sequence[Contender]) -> list[Contender]:
    """The single template and the 80-template ensemble come first, once."""
    kept = [row for row in rows if not (isinstance(row, Variant) and _settings_of(row) in _CONTROLS)]
    return [SINGLE, EIGHTY, *kept]


def _settings_of(row: Variant) -> tuple[str, tuple[tuple[str, InfoValue], ...]]:
    return row.method, tuple(sorted(row.options.items()))


_CONTROLS = (_settings_of(SINGLE), _settings_of(EIGHTY))


def _parsed(method: str, pairs: Sequence[str]) -> dict[str, InfoValue]:
    if method not in METHODS:
        raise OptionError(f"no method {method!r}; there are {', '.join((*METHODS, CE_ENSEMBLE))}", field="methods")
    hints = get_type_hints(METHODS[method].settings)
    options: dict[str, InfoValue] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or key not in hints:
            raise OptionError(
                f"{method}:{pair}: options are written key=value with {', '.join(hints)}", field="methods"
            )
        options[key] = _value(value, hints[key])
    return options


def _value(text: str, hint: Any) -> InfoValue:
    """The option's own type; what does not fit stays text, and the registry refuses it by name."""
    try:
        if hint is bool:
            return {"true": True, "false": False}.get(text.lower(), text)
        return hint(text) if hint in (int, float) else text
    except ValueError:
        return text
