"""Class names for measurements: from a file, one a line, or made up of two lists of words. Distinct, and new each time
that another `salt` is asked for."""

from __future__ import annotations

from pathlib import Path

_KINDS = """amber ancient arctic azure brass broad bronze carved coastal copper coral crimson curved desert dusty early
eastern fallen fluffy folded forest frozen giant gilded glass golden grassy green hidden hollow indoor iron ivory large
little lunar marble mossy narrow northern old outdoor painted pale paper plain polished purple quiet red river rough
round rusty sandy scarlet shallow silent silver small smooth snowy southern spotted steel steep stone striped tall tiny
velvet violet western wild winter wooden woven yellow young"""

_THINGS = """acorn anchor apple apron badger basket beetle bell bench bicycle boat bottle bowl bridge bucket button
cabin cactus camera candle canoe castle chair cherry clock cloud coat compass crane cup deer desk door dragonfly drum
eagle engine falcon feather fence ferry finch flute fountain fox garden gate glove goose guitar hammer harbour hat
hedge heron horse island jacket kettle kite ladder lamp lantern lemon lighthouse lizard lobster map mask mill mirror
moth mountain mushroom needle orchid otter owl paddle parrot peach pear pencil piano pigeon pillow plate pocket pond
pumpkin rabbit raven ribbon robin rope saddle sail salmon scarf seal shell ship shoe shovel sofa spoon squirrel stairs
stove swan table teapot tent tiger tower tractor train trumpet tulip turtle umbrella vase violin wagon watch whale
wheel window wolf wren yacht"""

_PLACES = "in the rain,by the river,at night"


def class_names(count: int, *, salt: int = 0, file: Path | None = None) -> list[str]:
    """`count` distinct names; no two label sets of different `salt` are the same."""
    if file is not None:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if len(lines) < count:
            raise ValueError(f"{file} holds {len(lines)} names, {count} are needed")
        return [*lines[: count - 1], f"{lines[count - 1]} {salt}" if salt else lines[count - 1]]
    pairs = [f"{kind} {thing}" for thing in _THINGS.split() for kind in _KINDS.split()]
    if count > len(pairs):
        pairs += [f"{pair} {place}" for place in _PLACES.split(",") for pair in pairs]
    if count > len(pairs):
        raise ValueError(f"at most {len(pairs)} names can be made up; give a file for more")
    # A stride that shares no factor with the number of pairs visits each of them once.
    names = [pairs[(salt * 7919 + index * 6101) % len(pairs)] for index in range(count)]
    return [*names[:-1], f"{names[-1]} {salt}"]
