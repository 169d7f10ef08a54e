"""Measurements to Markdown: mean and deviation over seeds, accuracy and calibration side by side, what was left out and
why, and what each method costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from adapters.evaluation.protocols import ALL, BASE, NEW
from adapters.evaluation.records import Cost, Measured, by
from adapters.evaluation.report import spread

DASH = "-"
KIB = 1024


def accuracy_table(entries: Sequence[Measured]) -> str:
    """One row per method (and shots), one column per set with `top-1 / ECE`, and the mean over the sets."""
    sets = list(by(entries, lambda e: e.set_name))
    shots = len({e.shots for e in entries if e.shots}) > 1
    prompts = any(e.prompt_bytes for e in entries)
    heads = ["top-1 / ECE, %", *(["shots"] if shots else []), *sets, "mean", fit_head(entries), "stored, KiB"]
    heads += ["of that prompts, bytes"] if prompts else []
    lines = [_row(heads), _row(["---"] * len(heads))]
    for (method, count), mine in by(entries, lambda e: (e.method, e.shots)).items():
        cells = [_cell([e for e in mine if e.set_name == name]) for name in sets]
        whole = all(any(e.set_name == name and not e.skipped for e in mine) for name in sets)
        mean = _mean_cell(mine) if whole and len(sets) > 1 else DASH
        row = [method, *([str(count or DASH)] if shots else []), *cells, mean, _seconds(mine), _stored(mine)]
        lines.append(_row([*row, *([_prompt_bytes(mine)] if prompts else [])]))
    return "\n".join(lines)


def base_to_new_table(entries: Sequence[Measured]) -> str:
    """Per set base, new and their harmonic mean, in per cent of top-1; then the means over the sets, with ECE."""
    sets = list(by(entries, lambda e: e.set_name))
    heads = ["base / new / H, %", *sets, "mean", "ECE base / new, %", fit_head(entries)]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for method, mine in by(entries, lambda e: e.method).items():
        cells = [_halves_cell([e for e in mine if e.set_name == name]) for name in sets]
        lines.append(_row([method, *cells, _halves_mean(mine, sets), _halves_ece(mine), _seconds(mine)]))
    return "\n".join(lines)


def table(entries: Sequence[Measured]) -> str:
    """The table that fits the protocol, and below it the reasons for empty cells."""
    if not entries:
        return "nothing was measured"
    split = entries[0].protocol == "base-to-new"
    text = base_to_new_table(entries) if split else accuracy_table(entries)
    notes = reasons(entries)
    return text + ("\n\n" + notes if notes else "")


def fit_head(entries: Iterable[Measured]) -> str:
    return "fit, s (support features reused)" if any(e.reused for e in entries) else "fit, s"


def reasons(entries: Iterable[Measured]) -> str:
    """Why cells are empty, one line per method and reason."""
    groups = by((e for e in entries if e.skipped), lambda e: (e.method, e.skipped))
    return "\n".join(
        f"- {method} left out on {', '.join(sorted({_place(e) for e in mine}))}: {reason}"
        for (method, reason), mine in groups.items()
    )


def cost_table(costs: Sequence[Cost]) -> str:
    """Each row from a fresh process; memory is growth above the loaded backbone."""
    device = any(cost.cuda_fit_mib or cost.cuda_image_mib for cost in costs)
    heads = ["method", "set (classes)", "fit, s", "stored, KiB", "ms per image", "peak MiB of a fit",
             "peak MiB of an image", *(["device MiB, fit / image"] if device else [])]  # fmt: skip
    lines = [_row(heads), _row(["---"] * len(heads))]
    for cost in costs:
        place = f"{cost.set_name} ({cost.classes})"
        if cost.skipped:
            lines.append(_row([cost.method, place, cost.skipped, *([""] * (len(heads) - 3))]))
            continue
        cells = [f"{cost.fit_seconds:.2f}", f"{cost.nbytes / KIB:.1f}", f"{cost.image_ms:.1f}",
                 f"{cost.fit_mib:.0f}", f"{cost.image_mib:.0f}"]  # fmt: skip
        cells += [f"{cost.cuda_fit_mib:.0f} / {cost.cuda_image_mib:.0f}"] if device else []
        lines.append(_row([cost.method, place, *cells]))
    return "\n".join(lines)


def harmonic(base: float, new: float) -> float:
    return 2 * base * new / (base + new) if base + new else 0.0


def means(entries: Iterable[Measured]) -> list[float]:
    """Per seed the mean top-1 over sets; measurements that no seed changes count for every seed."""
    return _over_seeds(entries, lambda e: e.top1)


def _over_seeds(entries: Iterable[Measured], figure: Callable[[Measured], float]) -> list[float]:
    kept = [e for e in entries if not e.skipped]
    seeds = sorted({e.seed for e in kept})
    groups = by(kept, lambda e: (e.set_name, e.part))
    values = []
    for seed in seeds:
        chosen = [next((e for e in group if e.seed == seed), group[0]) for group in groups.values()]
        values.append(statistics.fmean(figure(e) for e in chosen))
    return values


def _cell(entries: Sequence[Measured]) -> str:
    kept = [e for e in entries if not e.skipped]
    if not kept:
        return DASH
    return f"{spread([e.top1 for e in kept])} / {spread([e.ece for e in kept])}"


def _mean_cell(entries: Sequence[Measured]) -> str:
    top1, ece = _over_seeds(entries, lambda e: e.top1), _over_seeds(entries, lambda e: e.ece)
    return f"{spread(top1)} / {spread(ece)}" if top1 else DASH


def _halves(entries: Sequence[Measured]) -> dict[str, list[float]]:
    """Base, new and H by seed, over all sets of the entries; empty if a half is missing."""
    parts = {part: means(e for e in entries if e.part == part) for part in (BASE, NEW)}
    return parts if all(parts.values()) else {}


def _halves_cell(entries: Sequence[Measured]) -> str:
    parts = {part: [e for e in entries if e.part == part and not e.skipped] for part in (BASE, NEW)}
    if not parts[BASE]:
        return DASH
    base = [e.top1 for e in parts[BASE]]
    if not parts[NEW]:
        return f"{spread(base)} / {DASH} / {DASH}"
    new = {e.seed: e.top1 for e in parts[NEW]}
    both = [harmonic(e.top1, new.get(e.seed, parts[NEW][0].top1)) for e in parts[BASE]]
    return f"{spread(base)} / {spread(list(new.values()))} / {spread(both)}"


def _halves_mean(entries: Sequence[Measured], sets: Sequence[str]) -> str:
    """H of the means, as the papers report it."""
    parts = _halves(entries)
    covered = {(e.set_name, e.part) for e in entries if not e.skipped}
    if not parts or any((name, part) not in covered for name in sets for part in (BASE, NEW)):
        return DASH
    both = [harmonic(base, new) for base, new in zip(parts[BASE], parts[NEW], strict=False)]
    return f"{spread(parts[BASE])} / {spread(parts[NEW])} / {spread(both)}"


def _halves_ece(entries: Sequence[Measured]) -> str:
    cells = []
    for part in (BASE, NEW):
        values = _over_seeds((e for e in entries if e.part == part), lambda e: e.ece)
        cells.append(spread(values) if values else DASH)
    return " / ".join(cells)


def _seconds(entries: Iterable[Measured]) -> str:
    """From the quickest to the slowest: label sets differ in size, so a mean would say nothing."""
    values = [e.seconds for e in entries if not e.skipped]
    if not values:
        return DASH
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _stored(entries: Iterable[Measured]) -> str:
    values = [e.nbytes / KIB for e in entries if not e.skipped]
    if not values:
        return DASH
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def _prompt_bytes(entries: Iterable[Measured]) -> str:
    values = sorted({e.prompt_bytes for e in entries if not e.skipped and e.prompt_bytes})
    if not values:
        return DASH
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"


def _place(entry: Measured) -> str:
    return entry.set_name + (f" ({entry.part} classes)" if entry.part != ALL else "")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
