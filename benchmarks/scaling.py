"""What 100,000 images a second would take. Measures on this machine what one image costs in each part of the service
(processor seconds, so that other work on the machine does not count), feeds a queueing model with it, holds the model
against the real service, and asks the model what is full first on the way up."""

from __future__ import annotations

import argparse
import asyncio
import json
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adapters import create_adapter
from adapters.base import PLAIN, LabelSet
from adapters.clip import Backbone, load_backbone
from benchmarks.load import Job, LoadProcess
from benchmarks.names import class_names
from benchmarks.process import ServiceProcess, running_service
from benchmarks.queueing import Costs, Plant, Simulation, bottleneck, ceilings
from benchmarks.report import progress, write, write_header, write_table
from service.cluster.orders import BatchOrder, ImageOrder
from service.compute.scoring import ImageJob, score_batch
from service.core import build_decoder
from service.process.allocator import keep_large_blocks
from service.settings import Settings

IMAGE = Path(__file__).parents[1] / "examples" / "images" / "coffee.jpg"
CLASSES = 100
BATCHES = (1, 4, 16, 32)


@dataclass(frozen=True, slots=True)
class Device:
    """Seconds of one batch: fixed, and for each image."""

    name: str
    fixed: float
    each: float


GPU = Device(
    "one H100, ViT-B/16 in bf16 (assumed, not measured: 12,000 images/s in full batches of 128)", 1.5e-3, 72e-6
)


def spent(work: Callable[[], object], times: int) -> float:
    """Median processor seconds of this thread."""
    found = []
    for _ in range(times):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return statistics.median(found)


def device_costs(backbone: Backbone, pixels: torch.Tensor) -> Device:
    """Least squares of a batch's seconds over its images; tower and head."""
    labels = LabelSet.of(*class_names(CLASSES))
    state = create_adapter("zero-shot", backbone).adapt(labels, backbone)

    def batch(size: int) -> float:
        jobs = [ImageJob(pixels, state, PLAIN, top_k=5) for _ in range(size)]
        stacked = torch.stack([pixels] * size)
        return spent(lambda: score_batch(backbone.image.encode(stacked), jobs), 12)

    batch(BATCHES[-1])
    times = [batch(size) for size in BATCHES]
    mean_size, mean_time = statistics.mean(BATCHES), statistics.mean(times)
    above = sum((size - mean_size) * (seconds - mean_time) for size, seconds in zip(BATCHES, times, strict=True))
    each = above / sum((size - mean_size) ** 2 for size in BATCHES)
    return Device("this machine's core, bundled backbone", max(0.0, mean_time - each * mean_size), each)


def hand_over_cost(pixels: torch.Tensor) -> float:
    """Packing an order for a worker, twice, for unpacking costs about the same; what a network adds is not in it."""
    order = BatchOrder(pixels[None].numpy(), PLAIN, (ImageOrder("0" * 64, 5, "softmax"),))
    return 2 * spent(lambda: pickle.dumps(order, protocol=5), 200)


def http_cost(service: ServiceProcess, generator: LoadProcess) -> float:
    """Processor seconds per request of an image whose features are kept: everything but decoding and the tower."""
    job = image_job(service, concurrency=8, seconds=3.0)
    generator.run(replace(job, seconds=1.0))
    before = service.metric("process_cpu_seconds_total")
    answered = len(generator.run(job).latencies)
    return (service.metric("process_cpu_seconds_total") - before) / answered


def image_job(service: ServiceProcess, *, concurrency: int, seconds: float) -> Job:
    path = "/v1/classify?label_set=hundred&top_k=5"
    return Job(service.port, path, (str(IMAGE),), concurrency, seconds)


def upload(service: ServiceProcess) -> None:
    body = {"classes": class_names(CLASSES), "adapter": "zero-shot", "name": "hundred"}
    service.client.post("/v1/label-sets", json=body, headers={"Prefer": "wait=60"}).raise_for_status()


def measured_costs(generator: LoadProcess) -> tuple[Costs, Device]:
    keep_large_blocks()  # as the service does at its start
    backbone = load_backbone("bundled")
    torch.set_num_threads(1)
    decoder = build_decoder(Settings(threads=1), backbone)
    data = IMAGE.read_bytes()
    pixels = asyncio.run(decoder.pixels(data))
    decode = spent(lambda: decoder.decode(data), 60)
    decoder.close()
    progress("the device")
    device = device_costs(backbone, pixels)
    progress("HTTP")
    with running_service(threads="1", engine="torch") as service:
        upload(service)
        http = http_cost(service, generator)
    costs = Costs(
        parse=0.6 * http,
        decode=decode,
        answer=0.4 * http,
        hand_over=0.0,
        device_fixed=device.fixed,
        device_each=device.each,
        store=250e-6,
        store_share=0.002,
    )
    return replace(costs, hand_over=hand_over_cost(pixels)), device


def validate(costs: Costs, generator: LoadProcess, cores: int) -> list[tuple[int, float, float, float, float]]:
    """Callers, and images/s and median seconds of the service and of the model, on so many cores."""
    plant = Plant(front_ends=1, decoders=cores, workers=1, max_batch=32, cores=cores)
    rows = []
    with running_service(threads="1", engine="torch", embedding_bytes="0") as service:
        upload(service)
        for callers in (1, 4, 16):
            generator.run(image_job(service, concurrency=callers, seconds=1.0))
            real = generator.run(image_job(service, concurrency=callers, seconds=4.0))
            model = Simulation(plant, replace(costs, hand_over=0.0)).closed_loop(callers, 20.0)
            rows.append((callers, real.rate, model.rate, real.quantile(0.5), model.quantile(0.5)))
    return rows


def climb(costs: Costs, targets: Sequence[int], *, decoders: int, per_worker: float) -> list[dict[str, Any]]:
    """For each rate: the smallest plant whose parts are at most 80 % full, and what the model says of it."""
    rows = []
    for target in targets:
        room = target / 0.8
        loops = room * (costs.parse + costs.answer)
        decoding = room * costs.decode / decoders
        plant = Plant(max(1, round(max(loops, decoding) + 0.5)), decoders, max(1, round(room / per_worker + 0.5)), 128)
        seconds = min(5.0, max(0.6, 60_000 / target))
        outcome = Simulation(plant, costs).open_loop(target, seconds)
        name, most = bottleneck(plant, costs)
        rows.append(
            {"target": target, "plant": asdict(plant), "full_first": name, "at": most, "rate": outcome.rate,
             "p50": outcome.quantile(0.5), "p99": outcome.quantile(0.99), "busy": outcome.busy,
             "batch": outcome.mean_batch, "store_at": ceilings(plant, costs)["store"],
             "cores": plant.front_ends * (1 + decoders) + plant.workers}
        )  # fmt: skip
    return rows


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=1, help="that the service has to itself while it is measured")
    parser.add_argument("--decoders", type=int, default=4, help="decoding threads of a front end")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="SVG or PNG; needs matplotlib")
    parser.add_argument("--costs", type=Path, help="an earlier --json, to leave out the measurements")
    arguments = parser.parse_args(argv)
    write_header("Scaling", "scaling", argv)
    if arguments.costs is not None:
        known = json.loads(arguments.costs.read_text())
        costs, checks = Costs(**known["costs"]), known["checks"]
    else:
        with LoadProcess() as generator:
            costs, _ = measured_costs(generator)
            progress("the real service beside the model")
            checks = validate(costs, generator, arguments.cores)
    gpu = replace(costs, device_fixed=GPU.fixed, device_each=GPU.each)
    targets = (100, 1_000, 10_000, 30_000, 100_000)
    plans = climb(gpu, targets, decoders=arguments.decoders, per_worker=128 / (GPU.fixed + 128 * GPU.each))
    report(costs, checks, plans)
    if arguments.plot is not None:
        plot(plans, arguments.plot)
    if arguments.json is not None:
        found = {"costs": asdict(costs), "checks": checks, "gpu": asdict(GPU), "plans": plans}
        arguments.json.write_text(json.dumps(found, indent=1))


def plot(plans: Sequence[dict[str, Any]], file: Path) -> None:
    """What it takes, and how full each part is then."""
    import matplotlib as mpl  # noqa: PLC0415  # optional
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    needed, full = figure.subplots(1, 2)
    rates = [one["target"] for one in plans]
    needed.loglog(rates, [one["plant"]["front_ends"] for one in plans], "o-", label="front ends")
    needed.loglog(rates, [one["plant"]["workers"] for one in plans], "s-", label="GPUs")
    needed.set(xlabel="images/s", ylabel="processes, GPUs", title="What it takes")
    for name in plans[0]["busy"]:
        full.semilogx(rates, [100 * one["busy"][name] for one in plans], "o-", label=name)
    full.axhline(80, color="grey", linewidth=0.8, linestyle=":")
    full.set(xlabel="images/s", ylabel="% of its time", title="How busy each part is", ylim=(0, 100))
    for axes in (needed, full):
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.25, which="major")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "scaling"}):
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def report(costs: Costs, checks: Sequence[Sequence[float]], plans: Sequence[dict[str, Any]]) -> None:
    write_table(("per image", "µs"), [(name, f"{1e6 * seconds:.0f}") for name, seconds in asdict(costs).items()
                                      if name != "store_share"])  # fmt: skip
    write_table(
        ("callers", "images/s", "model", "p50 ms", "model"),
        [(int(n), f"{a:.0f}", f"{b:.0f}", f"{1000 * c:.1f}", f"{1000 * d:.1f}") for n, a, b, c, d in checks],
    )
    write(f"Device: {GPU.name}.\n")
    columns = (
        "images/s",
        "front ends",
        "GPUs",
        "full first",
        "at images/s",
        "p50 ms",
        "p99 ms",
        "mean batch",
        "store full at",
    )
    write_table(
        columns,
        [
            (f"{one['target']:,}", one["plant"]["front_ends"], one["plant"]["workers"], one["full_first"],
             f"{one['at']:,.0f}", f"{1000 * one['p50']:.1f}", f"{1000 * one['p99']:.1f}", f"{one['batch']:.0f}",
             f"{one['store_at']:,.0f}")
            for one in plans
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
