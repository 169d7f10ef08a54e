"""`selftpt eval`: accuracy, calibration and cost of methods on labelled images, beside their controls. Offline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.progress import Progress

from adapters.clip import Backbone, load_backbone
from adapters.evaluation.ablation import ablation as ablation_table
from adapters.evaluation.controls import full_table
from adapters.evaluation.costs import CostPlan, costs_of
from adapters.evaluation.files import markdown_report, write_report
from adapters.evaluation.layouts import chosen, read_data
from adapters.evaluation.naming import CE_ENSEMBLE, parse_contenders, with_controls
from adapters.evaluation.protocols import PROTOCOLS, Plan
from adapters.evaluation.records import Cost, Journal, Measured, current
from adapters.evaluation.remembering import remembering
from adapters.evaluation.running import Bench, backbone_mark
from adapters.evaluation.variants import Contender, Trained, Variant
from adapters.registry import METHODS
from adapters.training.source_prompts import source_features
from adapters.training.stage_one import Report
from service.commands.display import notes, progress, results, write_json
from service.commands.local import plainly
from service.commands.train import reporter

FolderThere = click.Path(exists=True, file_okay=False, path_type=Path)
FolderOut = click.Path(file_okay=False, path_type=Path)
ONE_SOURCE = ("cross-dataset", "domain-shift")


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        found = tuple(int(piece) for piece in value.split(",") if piece.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of whole numbers such as 1,2,4") from None
    if not found or min(found) < 0:
        raise click.BadParameter("at least one number is needed, and none below 0")
    return found


def _seeds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """`1,2,3` are seeds; `3` alone is a count, `7,` alone a seed."""
    found = _numbers(context, parameter, value)
    if "," in value:
        return found
    if found[0] < 1:
        raise click.BadParameter("at least one seed is needed")
    return tuple(range(found[0]))


def _shots(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    found = _numbers(context, parameter, value)
    if min(found) < 1:
        raise click.BadParameter("shots start at 1")
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for, apart from data and backbone."""

    out: Path | None
    cost: bool
    cost_on: str
    device: str
    as_json: bool
    prompts: Path | None = None


@click.command("eval")
@click.option("--data", multiple=True, required=True, type=FolderThere, help="Folder of a set or of sets; repeatable.")
@click.option("--sets", default="", help="Only these sets, divided by commas.")
@click.option("--protocol", type=click.Choice(PROTOCOLS), default="zero-shot", show_default=True)
@click.option("--methods", help=f"Divided by commas; options as in coop:steps=50. {CE_ENSEMBLE}: four, ensembled.")
@click.option("--adapter", "names", multiple=True, type=click.Choice(tuple(METHODS)), help="One method; repeatable.")
@click.option("--shots", callback=_shots, default="16", show_default=True, help="Images per class to learn from.")
@click.option("--seeds", callback=_seeds, default="3", show_default=True, help="A list such as 1,2,3, or how many.")
@click.option("--from", "source_set", default="", help="Set to learn on (cross-dataset, domain-shift).")
@click.option("--source", type=FolderThere, help="Labelled source images: adds controls that are trained on them.")
@click.option("--ablation", is_flag=True, help="With --source: every stage, loss and choice of Self-TPT as a row.")
@click.option("--max-images", type=click.IntRange(min=1), help="At most so many test images of each class.")
@click.option("--reuse-features", is_flag=True, help="Fits share the features of their images; their time is less.")
@click.option("--backbone", default="bundled", show_default=True)
@click.option("--prompts", type=FolderThere, help="Folder of source prompts, as `selftpt train` writes them.")
@click.option("--out", type=FolderOut, help="Keeps results as they come, report, plots, features, controls.")
@click.option("--cost/--no-cost", default=False, help="Measure each method's time and memory in a fresh process.")
@click.option("--cost-on", default="", help="Set for --cost.  [default: the first]")
@click.option("--device", default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one entry per method, set, shots and seed.")
def evaluate(
    *,
    data: tuple[Path, ...],
    sets: str,
    protocol: str,
    methods: str | None,
    names: tuple[str, ...],
    shots: tuple[int, ...],
    seeds: tuple[int, ...],
    source_set: str,
    source: Path | None,
    ablation: bool,
    max_images: int | None,
    reuse_features: bool,
    backbone: str,
    prompts: Path | None,
    out: Path | None,
    cost: bool,
    cost_on: str,
    device: str,
    as_json: bool,
) -> None:
    """Measure accuracy and calibration (top-1 and ECE, in percent) of methods on labelled images.

    With --out a run that was stopped goes on where it was; several processes may share the folder.
    """
    if source and not out:
        raise click.UsageError("--source needs --out, where the trained controls are kept")
    if ablation and not source:
        raise click.UsageError("--ablation needs --source, the images that its rows are trained on")
    if (protocol in ONE_SOURCE) != bool(source_set):
        raise click.UsageError(f"--from names the set to learn on in {' and '.join(ONE_SOURCE)}, and only there")
    asked = Asked(out, cost, cost_on, device, as_json, prompts)
    with plainly(), progress() as bars:
        loading = bars.add_task(f"loading {backbone}", total=None)
        every = [one.limited(max_images) for folder in data for one in read_data(folder)]
        towers = load_backbone(backbone, device=device, source_dir=prompts)
        towers = remembering(towers) if reuse_features else towers
        bars.remove_task(loading)
        rows = parse_contenders(methods or ",".join(names) or usual_methods(protocol))
        if source and out:
            rows = [*rows, *_trained(towers, source, out, seeds, bars, taken_apart=ablation)]
        plan = Plan(
            protocol,
            chosen(every, [name.strip() for name in sets.split(",") if name.strip()]),
            with_controls(rows),
            shots,
            seeds,
            chosen(every, [source_set])[0] if source_set else None,
        )
        run_plan(plan, towers, asked, bars)


def usual_methods(protocol: str) -> str:
    """All that serve an image with one pass; without support images, those that need none."""
    names = [
        name
        for name, method in METHODS.items()
        if not method.scores_images and (protocol != "zero-shot" or method.support == 0)
    ]
    return ",".join(names)


def run_plan(plan: Plan, backbone: Backbone, asked: Asked, bars: Progress) -> list[Measured]:
    """Measures, writes down and shows. Whatever ends the run, what is there is reported."""
    journal = Journal(asked.out)
    cache = asked.out / "features" if asked.out else None
    bench = Bench(backbone, plan, journal, cache=cache, watch=_watcher(bars))
    overall = bars.add_task(plan.protocol, total=len(bench))
    found: list[Measured] = []
    costs: list[Cost] = []
    try:
        for number, entries in enumerate(bench.run(), start=1):
            found += entries
            bars.update(overall, completed=number)
            _say(number, len(bench), entries, bars)
        if asked.cost:
            costs += _costs(plan, backbone, asked, journal, bars)
    finally:
        bars.stop()
        _report(plan, backbone, asked, found, costs)
    return found


def _report(plan: Plan, backbone: Backbone, asked: Asked, found: Sequence[Measured], costs: Sequence[Cost]) -> None:
    if asked.out:
        journal = Journal(asked.out)
        entries = _in_order(current(journal.measured(), plan.protocol, backbone_mark(backbone)), plan)
        for remark in (f"report: {asked.out / 'report.md'}", *write_report(asked.out, entries, costs)):
            notes().print(remark)
    if asked.as_json:
        write_json([{**asdict(e), "set": e.set_name} for e in found])
    else:
        results().print(markdown_report(_in_order(found, plan), costs), markup=False)
    if plan.protocol == "zero-shot" and not any(isinstance(row, Trained) for row in plan.contenders):
        notes().print(
            "the control of four CE-trained prompts needs labelled source images: --source FOLDER --out FOLDER"
        )


def _in_order(entries: Sequence[Measured], plan: Plan) -> list[Measured]:
    """As the methods and sets were named; what other runs left in the folder comes last."""
    methods = {row.label: place for place, row in enumerate(plan.contenders)}
    sets = {data.name: place for place, data in enumerate(plan.sets)}
    return sorted(
        entries, key=lambda e: (methods.get(e.method, len(methods)), e.shots, sets.get(e.set_name, len(sets)), e.seed)
    )


def _costs(plan: Plan, backbone: Backbone, asked: Asked, journal: Journal, bars: Progress) -> list[Cost]:
    data = chosen(plan.sets, [asked.cost_on])[0] if asked.cost_on else plan.sets[0]
    rows = [row for row in plan.contenders if isinstance(row, Variant)]
    task = bars.add_task("cost", total=len(rows))
    costs = []
    for cost in costs_of(
        rows, backbone, CostPlan(data, max(plan.shots), plan.seeds[0], asked.device, asked.prompts), journal
    ):
        costs.append(cost)
        bars.update(task, advance=1, description=f"cost of {cost.method}")
    return costs


def _watcher(bars: Progress) -> Callable[[str, float], None]:
    task = bars.add_task("", total=1.0, visible=False)

    def watch(what: str, done: float) -> None:
        bars.update(task, completed=done, description=what, visible=True)

    return watch


def _say(number: int, total: int, entries: Sequence[Measured], bars: Progress) -> None:
    """Where bars cannot be drawn, a line for each fit."""
    if not bars.disable:
        return
    for e in entries:
        figures = e.skipped or f"{e.top1:.1f} / {e.ece:.1f}, {e.seconds:.1f} s"
        part = f" {e.part}" if e.part != "all" else ""
        notes().print(
            f"{number}/{total} {e.method}, {e.set_name}{part}, {e.shots} shots, seed {e.seed}: {figures}",
            soft_wrap=True,
        )


def _trained(
    backbone: Backbone, source: Path, out: Path, seeds: Sequence[int], bars: Progress, *, taken_apart: bool
) -> list[Contender]:
    features = source_features(source, backbone, cache=out / "features")
    rows = ablation_table if taken_apart else full_table
    table = rows(backbone, features, seeds=seeds, folder=out / "controls", tell=_teller(bars))
    return [Trained(label, method) for label, method in table.items() if label not in CONTROL_LABELS]


def _teller(bars: Progress) -> Callable[[str], Report | None]:
    return lambda name: reporter(bars, bars.add_task(f"training {name}", total=None))


CONTROL_LABELS = {row.label for row in with_controls([])}
