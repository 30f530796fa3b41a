"""What a benchmark looks like: the table at the end, and one picture of how cost grows.

The picture asks four questions: what more adapters at once cost and save, what a larger model costs, what longer
self-edits cost, and what more adapters at once take in memory. Lines join medians, bars span the least and the most.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

from bench.ledger import Ledger, Row

COLOURS = {"ours": "#0b6e4f", "sequential": "#c8553d", "graphs": "#8d6a9f", "longest": "#e0a458", "official": "#444444"}
MARKS = "osD^vP*"


def table(ledger: Ledger) -> Table:
    """List every row: seconds per self-edit (~ where scaled up), real tokens/s, share of the peak, memory."""
    shown = Table(title="Seconds per self-edit (examine: per adapter): median, then least and most; ~ is scaled up")
    for name in ("phase", "model", "targets", "workload", "arm", "K"):
        shown.add_column(name, no_wrap=True)
    for name in ("seconds", "tokens/s", "MFU", "peak MB", "timings"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in sorted(ledger.rows.values(), key=lambda row: (row.phase != "train", row.workload, row.targets)):
        timings = ledger.seconds[row.key]
        middle = median(timings)
        shown.add_row(
            *(row.phase, row.model, row.targets, row.workload, row.arm, str(row.K)),
            f"{'~' if row.is_extrapolated else ''}{middle:.3g} [{min(timings):.3g}, {max(timings):.3g}]",
            f"{row.tokens / middle:,.0f}" if row.tokens else "",
            f"{row.flops / middle / ledger.peak:.1%}" if row.flops else "",
            f"{median(ledger.bytes[row.key]) / 1e6:,.0f}",
            str(len(timings)),
        )
    return shown


def draw(ledger: Ledger, path: Path) -> None:
    """Draw the four panels."""
    figure, ((by_slots, by_size), (by_tokens, memory)) = pyplot.subplots(2, 2, figsize=(12, 9), layout="constrained")
    trained = [row for row in ledger.rows.values() if row.phase == "train" and row.targets == "all-linear"]
    usual = [row for row in trained if row.workload == "B"]
    _draw_slots(by_slots, ledger, usual)
    _draw_size(by_size, ledger, usual)
    _draw_tokens(by_tokens, ledger, [row for row in trained if row.workload != "B"])
    _draw_memory(memory, ledger, usual)
    figure.suptitle("How the cost of a self-edit grows (rank 32 on all linear layers, 10 epochs, batch 1)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_slots(axes: Axes, ledger: Ledger, rows: list[Row]) -> None:
    for model, mark in zip(_models(rows), MARKS, strict=False):
        ours = [row for row in rows if row.model == model and row.arm == "ours"]
        _line(axes, ledger, ours, [float(row.K) for row in ours], COLOURS["ours"], f"ours, {model}", mark)
        for row in rows:
            if row.model == model and row.arm in ("sequential", "graphs"):
                label = f"{row.arm}, {model}"
                ends, level = [1, max(other.K for other in rows)], median(ledger.seconds[row.key])
                axes.plot(ends, [level, level], mark, linestyle=":", color=COLOURS[row.arm], label=label)
    _label(axes, "adapters trained at once, K", "seconds per self-edit", "more adapters at once")
    _count(axes, rows)


def _draw_size(axes: Axes, ledger: Ledger, rows: list[Row]) -> None:
    for arm, colour in COLOURS.items():
        slots = {model: ledger.headline[model] if arm == "ours" else 1 for model in _models(rows)}
        found = [row for row in rows if row.arm == arm and slots[row.model] == row.K]
        _line(axes, ledger, found, [row.params / 1e6 for row in found], colour, arm, "o")
    axes.set_xscale("log")
    _label(axes, "weights of the model, millions", "seconds per self-edit", "larger models")


def _draw_tokens(axes: Axes, ledger: Ledger, rows: list[Row]) -> None:
    for arm, colour in COLOURS.items():
        found = [row for row in rows if row.arm == arm]
        _line(axes, ledger, found, [row.tokens for row in found], colour, arm, "o")
    axes.set_xscale("log")
    model = ", ".join(_models(rows))
    _label(
        axes, "tokens a self-edit, all epochs", "seconds per self-edit", f"longer self-edits ({model}, sequences of 49)"
    )


def _draw_memory(axes: Axes, ledger: Ledger, rows: list[Row]) -> None:
    for model, mark in zip(_models(rows), MARKS, strict=False):
        ours = sorted((row for row in rows if row.model == model and row.arm == "ours"), key=lambda row: row.K)
        peaks = [median(ledger.bytes[row.key]) / 2**30 for row in ours]
        axes.plot([row.K for row in ours], peaks, color=COLOURS["ours"], marker=mark, label=f"ours, {model}")
        for row in rows:
            if row.model == model and row.arm in ("sequential", "official"):
                height = median(ledger.bytes[row.key]) / 2**30
                axes.plot([1], [height], mark, color=COLOURS[row.arm], label=f"{row.arm}, {model}")
    _label(axes, "adapters trained at once, K", "peak memory beyond the base, GiB", "memory")
    _count(axes, rows)


def _line(axes: Axes, ledger: Ledger, rows: list[Row], at: list[float], colour: str, label: str, mark: str) -> None:
    points = sorted(zip(at, (ledger.seconds[row.key] for row in rows), strict=True), key=lambda point: point[0])
    if points:
        middles = [median(timings) for _, timings in points]
        spans = [
            [middle - min(timings) for middle, (_, timings) in zip(middles, points, strict=True)],
            [max(timings) - middle for middle, (_, timings) in zip(middles, points, strict=True)],
        ]
        axes.errorbar([x for x, _ in points], middles, spans, color=colour, marker=mark, capsize=2, label=label)


def _label(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set(xlabel=x, ylabel=y, title=title, yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, ncols=2)


def _count(axes: Axes, rows: list[Row]) -> None:
    """Put a tick at every K that was run."""
    ticks = sorted({row.K for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])


def _models(rows: Iterable[Row]) -> list[str]:
    """Name the models, smallest first."""
    return sorted({row.model for row in rows}, key=lambda model: max(row.params for row in rows if row.model == model))
