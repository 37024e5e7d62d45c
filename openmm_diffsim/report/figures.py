"""Figures of a fit."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from ..curve import Axis, Curve
from ..io import atomic_write_bytes
from ..observables import Observable

Array = NDArray[np.float64]

_MODEL, _TARGET, _TRUTH = "#1f6fb4", "#222222", "#c8552b"
_MODELS = (_MODEL, "#2e8b57", "#8a5fb0")  # of several functions in one panel
_MARKERS = ("o", "s", "^")
_HIGHEST = 30.0  # kJ/mol above its minimum, of a bonded potential that is drawn
_LETTERS = 14  # of a title, to an inch


@dataclass(frozen=True)
class Comparison:
    """One measured curve and the model's, at the same places."""

    observable: Observable
    """Says what they are called, and how they are drawn."""
    axis: Axis
    target: Curve
    model: Curve
    state: str = ""
    """Name of the state point, where there are several."""

    @property
    def rise(self) -> float:
        """Where pairs begin to be found, or else where the data begin."""
        found = self.observable.contact(self.target, 0.1)
        return float(self.target.x[0]) if found is None else found


def fit_figure(
    r: Array | None,
    u: Array | None,
    u_error: Array | None,
    comparisons: Sequence[Comparison],
    rounds: Sequence[Mapping[str, Any]],
    truth: tuple[Array, Array] | None = None,
    title: str = "",
    others: Sequence[Any] = (),
) -> Figure:
    """Potential, curves against their targets, and the misfit per round.

    Bands are two standard errors. Curves of one observable share a panel; those of structure stand
    to the left, then other histograms, then the rest.

    Parameters
    ----------
    r : array [points], nm; None: there is no function to draw
    u, u_error : arrays [points] or [pairs of types, points], kJ/mol
    comparisons : one per target that is a curve
    rounds : the ``rounds`` of summary.json
    truth : (r, u), optional
        A known potential to hold the fit against.
    others : further functions, each a ``FunctionTable``, with a panel of its own
    """
    panels = _panels(comparisons)
    columns = 1 + len(panels) + len(others)
    figure = Figure(figsize=(5 * columns + 1, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    widths = (1, *[1.25] * len(panels), *[1.0] * len(others))
    grid = figure.add_gridspec(2, columns, height_ratios=(2.6, 1), width_ratios=widths)
    if r is not None and u is not None and u_error is not None:
        _draw_potential(figure.add_subplot(grid[0, 0]), r, u, u_error, comparisons, truth)
    _draw_misfit(figure.add_subplot(grid[int(r is not None) :, 0]), rounds)
    for column, other in enumerate(others, 1 + len(panels)):
        _draw_function(figure.add_subplot(grid[0, column]), other)
    for column, panel in enumerate(panels, 1):
        top = figure.add_subplot(grid[0, column])
        _draw_curves(top, panel)
        _draw_residuals(figure.add_subplot(grid[1, column], sharex=top), panel)
    if title:
        figure.suptitle(_wrapped(title, round(_LETTERS * figure.get_figwidth())), fontsize=10)
    return figure


def curves_figure(comparisons: Sequence[Comparison], title: str = "") -> Figure:
    """Curves against their targets, and what is left between them, as in ``fit_figure``."""
    panels = _panels(comparisons)
    figure = Figure(figsize=(6 * len(panels) + 0.5, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, len(panels), height_ratios=(2.6, 1))
    for column, panel in enumerate(panels):
        top = figure.add_subplot(grid[0, column])
        _draw_curves(top, panel)
        _draw_residuals(figure.add_subplot(grid[1, column], sharex=top), panel)
    figure.suptitle(_wrapped(title, round(_LETTERS * figure.get_figwidth())), fontsize=10)
    return figure


def _wrapped(text: str, width: int) -> str:
    """Each line of a text in as many as it needs, none longer than so many letters."""
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, width))


def _panels(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """Those of one observable together, g(r) first, then other histograms, then the rest."""
    named: dict[str, list[Comparison]] = {}
    for c in comparisons:
        named.setdefault(c.observable.name, []).append(c)
    kinds = [(panel[0].observable, panel) for panel in named.values()]
    kinds.sort(key=lambda kind: (not kind[0].is_structure, not kind[0].is_histogram))
    return [panel for _, panel in kinds]


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure, atomically; the format follows from the name of the file."""
    atomic_write_bytes(path, figure_bytes(figure, Path(path).suffix[1:] or "png"))


def figure_bytes(figure: Figure, kind: str = "png") -> bytes:
    """What a file of this kind would hold."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=130)
    return stream.getvalue()


def curve_figure(observable: Observable, axis: Axis, curve: Curve) -> Figure:
    """One curve with a band of two standard errors."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _band(axes, curve, 0.0, _MODEL, observable.label)
    _finish(axes, observable)
    axes.set_xlabel(_with_unit(axis.name, axis.unit))
    return figure


def _draw_function(axes: Any, table: Any) -> None:
    """u of one term, from its minimum up to where next to nothing is found."""
    for k, (row, spread) in enumerate(zip(table.u, table.error, strict=True)):
        label = table.term if len(table.u) == 1 else f"{table.term}, type {k}"
        _band(axes, Curve(table.q, row, spread), 0.0, f"C{k}", label)
    lowest = float(table.u.min())
    axes.set_ylim(lowest - 2.0, lowest + _HIGHEST)
    unit = "rad" if table.quantity == "angle" else "nm"
    axes.set(xlabel=f"{table.kind} / {unit}", ylabel="u / kJ mol$^{-1}$")
    axes.legend(frameon=False)


def _draw_potential(
    axes: Any,
    r: Array,
    u: Array,
    error: Array,
    comparisons: Sequence[Comparison],
    truth: tuple[Array, Array] | None,
) -> None:
    structure = [c for c in comparisons if c.observable.is_structure]
    starts = [c.observable.nearest_distance(c.target) or c.rise for c in structure]
    u, error = np.atleast_2d(u, error)
    start = min(starts, default=float(r[np.argmin(u.min(axis=0))]))
    outside = u[:, r >= min(start, 0.5 * float(r[0] + r[-1]))]
    span = max(float(np.ptp(outside)), 1e-3)
    axes.axhline(0, color="0.7", lw=0.8)
    for k, (row, spread) in enumerate(zip(u, error, strict=True)):
        color = _MODEL if len(u) == 1 else f"C{k}"
        label = "refined" if len(u) == 1 else f"refined, pair of types {k}"
        _band(axes, Curve(r, row, spread), 0.0, color, label)
    if truth is not None:
        axes.plot(*truth, color=_TRUTH, ls="--", lw=1.5, label="truth")
    if structure:
        seen = min(c.rise for c in structure)
        axes.axvspan(r[0], seen, color="0.93", zorder=0, label="no pairs there: extrapolated")
    axes.set_ylim(float(outside.min()) - 0.6 * span, float(outside.max()) + 1.8 * span)
    axes.set_xlim(r[0], r[-1])
    axes.set(xlabel="r / nm", ylabel="u(r) / kJ mol$^{-1}$")
    axes.legend(frameon=False)


def _draw_curves(axes: Any, panel: Sequence[Comparison]) -> None:
    """Targets and models; what tells several apart is a shift, or the style."""
    observable = panel[0].observable
    for index, c in enumerate(panel):
        number = f" {index}" if len(panel) > 1 else ""
        _draw_comparison(axes, c, index, f" {c.state}" if c.state else number)
    _finish(axes, observable)
    first = min(c.rise for c in panel)
    last = max(float(c.target.x[-1]) for c in panel)
    axes.set_xlim(0.8 * first if observable.is_structure else first, last)
    axes.tick_params(labelbottom=False)


def _draw_comparison(axes: Any, c: Comparison, index: int, name: str) -> None:
    shift = index * c.observable.shift
    style = 0 if shift else index
    axes.errorbar(
        c.target.x,
        c.target.y + shift,
        yerr=2 * c.target.spread,
        fmt=_MARKERS[style % len(_MARKERS)],
        ms=2.5,
        lw=0.7,
        color=_TARGET,
        label=f"target{name}",
    )
    _band(axes, c.model, shift, _MODELS[style % len(_MODELS)], f"model{name}")


def _finish(axes: Any, observable: Observable) -> None:
    axes.axhline(observable.tends_to, color="0.7", lw=0.8)
    axes.set(ylabel=_with_unit(observable.label, _as_math(observable.unit)))
    if observable.is_histogram:
        axes.set_ylim(0, None)
    axes.legend(frameon=False)


def _with_unit(name: str, unit: str) -> str:
    return f"{name} / {unit}" if unit else name


def _as_math(unit: str) -> str:
    """``nm^2/ps`` as nm$^{2}$ ps$^{-1}$."""
    parts = [part.partition("^") for part in unit.split("/")]
    signs = ["", *["-"] * (len(parts) - 1)]
    return " ".join(
        name if not sign and not power else f"{name}$^{{{sign}{power or 1}}}$"
        for sign, (name, _, power) in zip(signs, parts, strict=True)
        if name != "1"
    )


def _draw_residuals(axes: Any, panel: Sequence[Comparison]) -> None:
    axes.axhline(0, color="0.7", lw=0.8)
    for index, c in enumerate(panel):
        combined = np.hypot(c.target.spread, c.model.spread)
        axes.fill_between(c.target.x, -2 * combined, 2 * combined, color="0.88", lw=0)
        style = 0 if c.observable.shift else index
        axes.plot(c.target.x, c.model.y - c.target.y, color=_MODELS[style % len(_MODELS)], lw=1.2)
    axis = panel[0].axis
    axes.set(xlabel=_with_unit(axis.name, axis.unit), ylabel="model - target")


def _draw_misfit(axes: Any, rounds: Sequence[Mapping[str, Any]]) -> None:
    number = np.arange(1, len(rounds) + 1)
    misfit = np.array([entry["misfit"] for entry in rounds], dtype=float)
    axes.semilogy(number, misfit, "o-", color=_MODEL, ms=4)
    axes.axhline(1, color="0.7", lw=0.8)
    back = np.array([bool(entry.get("rolled_back")) for entry in rounds])
    if back.any():
        axes.semilogy(number[back], misfit[back], "x", color=_TRUTH, ms=9, label="rolled back")
        axes.legend(frameon=False)
    axes.set(xlabel="round", ylabel="misfit")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _band(axes: Any, curve: Curve, shift: float, color: str, label: str) -> None:
    y = curve.y + shift
    axes.plot(curve.x, y, color=color, lw=1.6, label=label)
    below, above = y - 2 * curve.spread, y + 2 * curve.spread
    axes.fill_between(curve.x, below, above, color=color, alpha=0.22, lw=0)
