"""Figures of a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MODEL, _TARGET, _TRUTH = "#1f6fb4", "#222222", "#c8552b"
_MODELS = (_MODEL, "#2e8b57", "#8a5fb0")  # of several functions in one panel
_MARKERS = ("o", "s", "^")


@dataclass(frozen=True)
class RDFComparison:
    """One measured g(r) and the model's."""

    r: Array  # [points], nm
    target: Array  # [points]
    target_error: Array  # [points], standard error
    model: Array  # [points]
    model_error: Array  # [points], standard error

    @property
    def x(self) -> Array:
        """Where it was measured: r."""
        return self.r


@dataclass(frozen=True)
class AngleComparison:
    """One measured distribution of angles and the model's."""

    theta: Array  # [points], rad
    target: Array  # [points], 1/rad
    target_error: Array  # [points], standard error
    model: Array  # [points], 1/rad
    model_error: Array  # [points], standard error

    @property
    def x(self) -> Array:
        """Where it was measured: theta."""
        return self.theta


@dataclass(frozen=True)
class TimeComparison:
    """One measured function of time and the model's."""

    t: Array  # [points], ps
    target: Array  # [points]
    target_error: Array  # [points], standard error
    model: Array  # [points]
    model_error: Array  # [points], standard error
    name: str  # of the observable, such as "VACF"
    unit: str  # of its values, such as "nm^2/ps^2"

    @property
    def x(self) -> Array:
        """Where it was measured: t."""
        return self.t


Comparison = RDFComparison | AngleComparison | TimeComparison


def fit_figure(
    r: Array,
    u: Array,
    u_error: Array,
    comparisons: Sequence[RDFComparison],
    rounds: Sequence[Mapping[str, Any]],
    truth: tuple[Array, Array] | None = None,
    title: str = "",
    angles: Sequence[AngleComparison] = (),
    over_time: Sequence[TimeComparison] = (),
) -> Figure:
    """Potential, curves against their targets, and the misfit per round.

    Bands are two standard errors. Angles, and then functions of time, stand to the right of g(r),
    or in its place where there is none; those of one observable share a panel.

    Parameters
    ----------
    r, u, u_error : arrays [points], nm and kJ/mol
    comparisons : one per g(r) target
    rounds : the ``rounds`` of summary.json
    truth : (r, u), optional
        A known potential to hold the fit against.
    angles : one per target that is a distribution of angles
    over_time : one per target that is a function of time
    """
    others: list[Sequence[Comparison]] = [angles] if angles else []
    for name in dict.fromkeys(c.name for c in over_time):
        others.append([c for c in over_time if c.name == name])
    with_rdfs = bool(comparisons) or not others
    columns = 1 + with_rdfs + len(others)
    figure = Figure(figsize=(5 * columns + 1, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    widths = (1, *[1.25] * (columns - 1))
    grid = figure.add_gridspec(2, columns, height_ratios=(2.6, 1), width_ratios=widths)
    _draw_potential(figure.add_subplot(grid[0, 0]), r, u, u_error, comparisons, truth)
    _draw_misfit(figure.add_subplot(grid[1, 0]), rounds)
    if with_rdfs:
        top = figure.add_subplot(grid[0, 1])
        _draw_rdfs(top, comparisons)
        _draw_residuals(figure.add_subplot(grid[1, 1], sharex=top), comparisons, "r / nm")
    for column, same in enumerate(others, columns - len(others)):
        top = figure.add_subplot(grid[0, column])
        _draw_functions(top, same)
        xlabel = "t / ps" if isinstance(same[0], TimeComparison) else "theta / rad"
        below = figure.add_subplot(grid[1, column], sharex=top)
        _draw_residuals(below, same, xlabel, styled=True)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure; the format follows from the name of the file."""
    figure.savefig(path, dpi=130)


def rdf_figure(r: Array, g: Array, error: Array) -> Figure:
    """One g(r) with a band of two standard errors."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _band(axes, r, g, error, _MODEL, "g(r)")
    _finish_rdf_axes(axes)
    axes.set_xlabel("r / nm")
    return figure


def _draw_potential(
    axes: Any,
    r: Array,
    u: Array,
    error: Array,
    comparisons: Sequence[RDFComparison],
    truth: tuple[Array, Array] | None,
) -> None:
    peaks = [float(c.r[np.argmax(c.target)]) for c in comparisons]
    well = min(float(r[np.argmin(u)]), 0.5 * float(r[0] + r[-1]))
    outside = u[r >= min(peaks, default=well)]
    span = max(float(np.ptp(outside)), 1e-3)
    axes.axhline(0, color="0.7", lw=0.8)
    _band(axes, r, u, error, _MODEL, "refined")
    if truth is not None:
        axes.plot(*truth, color=_TRUTH, ls="--", lw=1.5, label="truth")
    if comparisons:
        seen = min(map(_rise, comparisons))
        axes.axvspan(r[0], seen, color="0.93", zorder=0, label="no pairs there: extrapolated")
    axes.set_ylim(float(outside.min()) - 0.6 * span, float(outside.max()) + 1.8 * span)
    axes.set_xlim(r[0], r[-1])
    axes.set(xlabel="r / nm", ylabel="u(r) / kJ mol$^{-1}$")
    axes.legend(frameon=False)


def _draw_rdfs(axes: Any, comparisons: Sequence[RDFComparison]) -> None:
    for index, c in enumerate(comparisons):
        many = len(comparisons) > 1
        _draw_comparison(axes, c, f" {index}" if many else "", shift=float(index))
    _finish_rdf_axes(axes)
    if comparisons:
        axes.set_xlim(0.8 * min(map(_rise, comparisons)), max(c.r[-1] for c in comparisons))
    axes.tick_params(labelbottom=False)


def _draw_functions(axes: Any, comparisons: Sequence[Comparison]) -> None:
    for index, c in enumerate(comparisons):
        many = len(comparisons) > 1
        _draw_comparison(axes, c, f" {index}" if many else "", style=index)
    axes.axhline(0, color="0.7", lw=0.8)
    axes.set_xlim(min(c.x[0] for c in comparisons), max(c.x[-1] for c in comparisons))
    first = comparisons[0]
    label = "P(theta) / rad$^{-1}$"
    if isinstance(first, TimeComparison):
        label = first.name + (f" / {_as_math(first.unit)}" if first.unit else "")
    axes.set(ylabel=label)
    axes.legend(frameon=False)
    axes.tick_params(labelbottom=False)


def _draw_comparison(
    axes: Any, c: Comparison, name: str, shift: float = 0.0, style: int = 0
) -> None:
    """Target and model; what tells those of one panel apart is a shift, or the style."""
    axes.errorbar(
        c.x,
        c.target + shift,
        yerr=2 * c.target_error,
        fmt=_MARKERS[style % len(_MARKERS)],
        ms=2.5,
        lw=0.7,
        color=_TARGET,
        label=f"target{name}",
    )
    color = _MODELS[style % len(_MODELS)]
    _band(axes, c.x, c.model + shift, c.model_error, color, f"model{name}")


def _as_math(unit: str) -> str:
    """``nm^2/ps`` as nm$^{2}$ ps$^{-1}$."""
    first, *below = unit.split("/")
    powers = [first.partition("^"), *(part.partition("^") for part in below)]
    signs = ["", *["-"] * len(below)]
    return " ".join(
        name if not sign and not power else f"{name}$^{{{sign}{power or 1}}}$"
        for sign, (name, _, power) in zip(signs, powers, strict=True)
    )


def _finish_rdf_axes(axes: Any) -> None:
    axes.axhline(1, color="0.7", lw=0.8)
    axes.set(ylabel="g(r)", ylim=(0, None))
    axes.legend(frameon=False)


def _draw_residuals(
    axes: Any, comparisons: Sequence[Comparison], xlabel: str, styled: bool = False
) -> None:
    axes.axhline(0, color="0.7", lw=0.8)
    for index, c in enumerate(comparisons):
        combined = np.hypot(c.target_error, c.model_error)
        axes.fill_between(c.x, -2 * combined, 2 * combined, color="0.88", lw=0)
        color = _MODELS[index % len(_MODELS)] if styled else _MODEL
        axes.plot(c.x, c.model - c.target, color=color, lw=1.2)
    axes.set(xlabel=xlabel, ylabel="model - target")


def _draw_misfit(axes: Any, rounds: Sequence[Mapping[str, Any]]) -> None:
    number = np.arange(1, len(rounds) + 1)
    misfit = np.array([entry["misfit"] for entry in rounds], dtype=float)
    axes.semilogy(number, misfit, "o-", color=_MODEL, ms=4)
    axes.axhline(1, color="0.7", lw=0.8)
    back = np.array([bool(entry.get("event")) for entry in rounds])
    if back.any():
        axes.semilogy(number[back], misfit[back], "x", color=_TRUTH, ms=9, label="rolled back")
        axes.legend(frameon=False)
    axes.set(xlabel="round", ylabel="misfit")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _rise(c: RDFComparison) -> float:
    """Where g rises for good, nm."""
    high = np.flatnonzero(c.target > 0.5)
    low = np.flatnonzero(c.target[: high[0] if len(high) else 0] < 0.1)
    return float(c.r[low[-1] + 1]) if len(low) else float(c.r[0])


def _band(axes: Any, x: Array, y: Array, error: Array, color: str, label: str) -> None:
    axes.plot(x, y, color=color, lw=1.6, label=label)
    axes.fill_between(x, y - 2 * error, y + 2 * error, color=color, alpha=0.22, lw=0)
