"""The curves of a comparison on one page: what each way has gained, and what it has cost.

write_atomic(out / "report.html", page(result))
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from selfedit.recipes.forgetting.report import Mean, Result
from selfedit.report.page import ACCENT, INK, LINE, QUIET, document, picture, prose, section

_LOOKS = (  # reinforced, its own text imitated, taught
    *((ACCENT, "-", "o"), (ACCENT, "--", "s"), (QUIET, "-", "^")),
    *((INK, "-", "o"), (INK, "--", "s")),
)
_COSTS = {
    "fading/recall": "What fades: fall of the log-probability of an answer known before, nats",
    "kl/task/forward": "How far the writer has moved on its task: KL of base and writer, nats a token",
}


def page(result: Result) -> str:
    """Draw every way's mean over seeds from the untrained writer on, a picture for each cost."""
    sections = [section(heading, _figure(result, cost)) for cost, heading in _COSTS.items()]
    return document("Reinforced or taught: what a writer forgets", "<h1>Reinforced or taught</h1>" + "".join(sections))


def _figure(result: Result, cost: str) -> str:
    ways = list(dict.fromkeys(mean.way for mean in result.means))
    told = "; ".join(f"{m.way} {m.amount}: {_told(m, cost)}" for m in result.means)
    seeds = len(result.rows) // len(result.means)
    caption = f"<p>{prose(f'Mean of {seeds} seeds after each amount of training; left is better, up is better.')}</p>"
    return picture(lambda axes: _draw(axes, result.means, ways, cost), (6, 3.4), told) + caption


def _told(mean: Mean, cost: str) -> str:
    found = mean.measures[cost].mean
    if mean.gain.mean is None or found is None:
        return "not measured"
    return f"{100 * mean.gain.mean:+.1f} points at {found:.3f}"


def _draw(axes: Axes, means: Sequence[Mean], ways: Sequence[str], cost: str) -> None:
    for way, (colour, line, mark) in zip(ways, _LOOKS, strict=False):
        points = [(mean.measures[cost].mean, mean.gain.mean) for mean in means if mean.way == way]
        measured = [(0.0, 0.0), *((c, 100 * g) for c, g in points if c is not None and g is not None)]
        axes.plot([c for c, _ in measured], [g for _, g in measured], color=colour, linestyle=line, marker=mark)
        axes.annotate(f"  {way}", measured[-1], color=colour, va="center")
    axes.axhline(0, color=LINE, linewidth=1, zorder=0)
    axes.margins(x=0.25)
    axes.set_xlim(left=min(0, axes.get_xlim()[0] / 4))
    axes.set_xlabel(f"{cost}, nats", color=QUIET)
    axes.set_ylabel("gain, points", color=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_facecolor("none")
