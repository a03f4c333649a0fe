"""What each method costs on a cohort (Table 17): parameters, FLOPs, steps a second, memory."""

import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice, pairwise
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import polars as pl
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from remind.analysis.finding import Finding
from remind.cohort.batch import Batch
from remind.cohort.cohort import load
from remind.cohort.dataset import CohortDataset
from remind.cohort.survey import admit
from remind.config import Recipe, load_recipe
from remind.engine.compiled import uncompiled
from remind.engine.device import to_device
from remind.engine.fitted import evaluating
from remind.engine.loop import Training
from remind.engine.run_folder import RunFolder
from remind.engine.watch import Silence
from remind.errors import RemindError
from remind.methods import method
from remind.model import Model

REFERENCE = "soft-moe"
SHADES = {"joint": "#2f6f9f", "shared": "#8fb8d6", "specialised": "#173f5f"}
PANELS = {"parameters": "parameters", "flops": "FLOPs a sample", "steps_per_second": "steps a second"}
_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")  # "5" written here makes Linux forget a process's peak


class Cost(NamedTuple):
    """What a stage of a method costs. FLOPs are those of a forward pass, a sample; memory is the peak of its steps."""

    method: str
    stage: str
    parameters: int
    parameters_fusion: int
    parameters_trained: int
    flops_encoders: float
    flops_fusion: float  # and head
    flops: float
    steps_per_second: float
    peak_memory_bytes: int
    device: str


def cost(
    cohort: Path,
    methods: Sequence[str],
    *,
    recipe: str | Path | Recipe | None = None,
    overrides: Iterable[str] = (),
    steps: int = 30,
    warmup: int = 5,
    told: Callable[[str], None] = lambda sentence: None,
) -> Finding:
    """Train every stage of the methods for ``warmup + steps`` steps, each in a process of its own, and keep nothing.

    A second stage starts from what the first one starts from: what a step costs does not depend on the weights.

    Raises:
        RemindError: for anything wrong with what is given, or with a training.
    """
    if not methods or len(set(methods)) < len(methods):
        raise RemindError("name at least one method, and none twice.")
    if steps < 1 or warmup < 0:
        raise RemindError(f"{steps} steps after {warmup} are none to be measured; take 1 or more, after 0 or more.")
    given, name, costs = [*overrides, "train.gradients_every=0"], load(cohort).spec.name, []
    recipes = [load_recipe(recipe, given, method=one) for one in methods]
    if recipes[0].train.device == "cuda" and not torch.cuda.is_available():
        raise RemindError("train.device: there is no cuda device here; use cpu or auto.")
    with TemporaryDirectory(prefix="remind-") as scratch:
        for one in recipes:
            for place in range(len(method(one.method).stages)):
                found = apart(cohort, one, place, steps=steps, warmup=warmup, scratch=Path(scratch))
                told(f"{found.method}, {found.stage}: {found.steps_per_second:.3g} steps a second")
                costs.append(found)
    table = _table(costs)
    return Finding("cost", table, cost_figure(table, title=f"What a method costs, {name}"), list(_sentences(table)))


def apart(cohort: Path, recipe: Recipe, place: int, **settings: Any) -> Cost:
    """``measure``, where neither memory nor random numbers are anybody else's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure, cohort, recipe, place, **settings).result()
        except BrokenProcessPool:
            raise RemindError(
                f"{recipe.method}: the process that measures it has died; lower train.batch_size if memory is short, "
                "or, in a script of your own, call remind under: if __name__ == '__main__'."
            ) from None


def measure(cohort: Path, recipe: Recipe, place: int, *, steps: int, warmup: int, scratch: Path) -> Cost:
    """Train a stage of the recipe's method for a few steps, in this process.

    Features that the stage is served are computed first, into ``scratch``, and are no part of what is measured.
    """
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    data, store = recipe.data, scratch / "features"
    loaded = admit(load(cohort), unreadable=data.unreadable, budget=data.budget, workers=data.workers, cache=store)
    held = resident("VmRSS")
    training = Training(loaded, recipe, RunFolder(scratch / recipe.method), store, Silence())
    training.standing.stage = place
    training.prepare_stage()
    model, stage, device = training.fitted.model, training.stages[place], training.fabric.device
    _forget_peak(device)
    seconds = list(_seconds(training, warmup + steps))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resident("VmHWM") - held
    resting = [] if stage.specialise else model.fusion.of_groups()  # they learn nothing before they are in play
    trained = _size(one for one in model.parameters() if one.requires_grad) - _size(resting)
    with uncompiled(recipe.train):
        encoders, fusion = flops(model.requires_grad_(False), training.validation, size=recipe.train.batch_size)
    return Cost(
        recipe.method,
        stage.name,
        _size(model.parameters()),
        _size(model.fusion.parameters()),
        trained,
        encoders,
        fusion,
        encoders + fusion,
        1 / statistics.median(seconds[warmup:]),
        peak,
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {_threads()}",
    )


def _size(parameters: Iterable[nn.Parameter]) -> int:
    return sum(one.numel() for one in parameters)


def _threads() -> str:
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def _seconds(training: Training, count: int) -> Iterator[float]:
    """What each of so many steps takes, the reading of its batch included."""
    training.model.train()
    for encoder in training.fitted.model.by_name().values():
        encoder.prepare()
    begun = time.perf_counter()
    for batch in islice(_epochs(training), count):
        training.step(batch)
        if training.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        ended = time.perf_counter()
        yield ended - begun
        begun = ended


def _epochs(training: Training) -> Iterator[Batch]:
    """Batches of one epoch after the other, for ever."""
    while True:
        yield from training.batches()
        training.objective.after_epoch()


def flops(model: Model, dataset: CohortDataset, *, size: int) -> tuple[float, float]:
    """FLOPs a sample (2 a multiply-add) of the encoders, and of fusion and head, as the model predicts a data set.

    Those of matrix products and convolutions, on batches of ``size`` as they are: what pads a batch is computed, a
    backbone whose features are served is not. Torch 2.14 counts nothing of fused attention on a CPU, nor of what
    ``nn.MultiheadAttention`` and ``nn.TransformerEncoderLayer`` take as a fast path; both are off here. Its counter
    wants a model whose parameters ask for no gradient.
    """
    device, encoders, fusion = next(model.parameters()).device, 0, 0
    with evaluating(model), sdpa_kernel(SDPBackend.MATH), _without_fast_path():
        for rows in torch.arange(len(dataset)).split(size):
            batch = to_device(dataset.__getitems__(rows.tolist()), device)
            with FlopCounterMode(display=False) as counter:
                encoded = model.encode(batch)
            encoders += counter.get_total_flops()
            with FlopCounterMode(display=False) as counter:
                model.classify(model.fusion(encoded))
            fusion += counter.get_total_flops()
    return encoders / len(dataset), fusion / len(dataset)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _forget_peak(device: torch.device) -> None:
    """Let a peak be that of what comes now, where the system can forget one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _FORGET.exists():
        with suppress(OSError):
            _FORGET.write_text("5")


def resident(key: str) -> int:
    """Bytes of this process in memory, now (``VmRSS``, its own ``RssAnon``) or at most (``VmHWM``, or no /proc).

    On Linux ``ru_maxrss`` would be no use: there a process begins with the peak of the one that started it.
    """
    found = re.search(rf"{key}:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
    return 1024 * int(found[1]) if found else getrusage(RUSAGE_SELF).ru_maxrss


def _table(costs: Sequence[Cost]) -> pl.DataFrame:
    """A row a method and stage; ``steps_relative`` is to the reference's, and null without it."""
    reference = next((one.steps_per_second for one in costs if one.method == REFERENCE), None)
    relative = [None if reference is None else one.steps_per_second / reference for one in costs]
    table = pl.DataFrame([one._asdict() for one in costs])
    return table.with_columns(steps_relative=pl.Series(relative, dtype=pl.Float64))


def _sentences(table: pl.DataFrame) -> Iterator[str]:
    rows = table.rows(named=True)
    if len(rows) > 1:
        slow, fast = (pick(rows, key=lambda row: row["steps_per_second"]) for pick in (min, max))
        yield (
            f"Fastest was {_called(fast)} with {fast['steps_per_second']:.3g} steps a second, slowest {_called(slow)} "
            f"with {slow['steps_per_second']:.3g}."
        )
        light, heavy = (pick(rows, key=lambda row: row["flops"]) for pick in (min, max))
        yield (
            f"A sample's forward pass takes from {_short(light['flops'])}FLOPs ({_called(light)}) to "
            f"{_short(heavy['flops'])}FLOPs ({_called(heavy)})."
        )
    for first, second in pairwise(rows):
        if first["method"] == second["method"]:
            yield _second_stage(first, second)
    yield (
        f"Steps a second and memory are of this machine ({rows[0]['device']}) and this run, and of whatever else the "
        "machine was doing; parameters and FLOPs are of the recipe and the cohort."
    )


def _second_stage(first: dict[str, Any], second: dict[str, Any]) -> str:
    steps, work = (second[key] / first[key] for key in ("steps_per_second", "flops"))
    beside = "" if second["steps_relative"] is None else f", {second['steps_relative']:.2f} times {REFERENCE}'s"
    return (
        f"{second['method']}'s second stage made {steps:.2f} times the steps a second of its first{beside}; it trains "
        f"{second['parameters_trained']:,} of {second['parameters']:,} parameters, and its forward pass takes "
        f"{work:.2f} times the FLOPs."
    )


def _called(row: dict[str, Any]) -> str:
    return row["method"] if row["stage"] == "joint" else f"{row['method']} ({row['stage']})"


_short = EngFormatter(places=1, sep=" ")


def cost_figure(table: pl.DataFrame, *, title: str) -> Figure:
    """Parameters, FLOPs and steps a second, a row a method and a bar a stage."""
    methods = table["method"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(10.0, 1.4 + 0.36 * len(methods)), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (column, heading) in zip(panels, PANELS.items(), strict=True):
        for place, name in enumerate(methods):
            stages = table.filter(pl.col("method") == name)
            height = 0.72 / len(stages)
            y = [place - 0.36 + height * (order + 0.5) for order in range(len(stages))]
            bars = axes.barh(y, stages[column], 0.94 * height, color=[SHADES[stage] for stage in stages["stage"]])
            axes.bar_label(bars, [_label(column, value) for value in stages[column]], fontsize=7, padding=2)
        axes.set_xlim(0, 1.22 * max(table[column]))  # room for the last label
        if column != "steps_per_second":
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(heading, fontsize=9, loc="left")
        axes.tick_params(labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(methods)), methods, fontsize=8.5)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    shown = [stage for stage in SHADES if stage in table["stage"]]
    handles = [Patch(color=SHADES[stage], label=stage) for stage in shown]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(shown), frameon=False, fontsize=8)
    return figure


def _label(column: str, value: int | float) -> str:
    return f"{value:.3g}" if column == "steps_per_second" else _short(value)
