"""Figures of a fit, as SVG for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ...curve import Curve
from ...units import UNIT_NAMES
from .svg import Plot
from .text import labelled

Array = NDArray[np.float64]

COLOURS = 6
_LEAST = 1.0  # pairs within a knot's reach, in all frames together: fewer tell nothing
_FOUND = 0.08  # of the largest density: particles are often found there
_RESIDUALS = 150  # height of the figure of these, about half of that of a curve
_SIGMAS = 6.0  # most that a figure of residuals shows, in errors; what is beyond is clipped


@dataclass(frozen=True)
class Figure:
    """A drawing, what its colours mean, and what to say below."""

    svg: Markup
    keys: Sequence[tuple[str, str]] = ()
    """Class of a colour, and what it means."""
    caption: str = ""
    below: Sequence[Markup] = field(default_factory=tuple)
    """Further drawings that share the axis."""


@dataclass(frozen=True)
class Table:
    """u(q) of all rows (types, or pairs of types) of one function."""

    name: str
    coordinate: str
    quantity: str
    q: Array
    """[points], nm or rad."""
    u: Array
    """[rows, points], kJ/mol."""
    error: Array
    """[rows, points]; NaN where it is not known."""
    density: Array | None
    """[rows, points], how many of all frames there are about each q; None: not known."""
    rows: Sequence[str]
    """What to call each."""

    @property
    def axis(self) -> str:
        """Its label."""
        return labelled(self.coordinate, UNIT_NAMES[self.quantity])


def potential_figure(table: Table) -> Figure:
    """All rows, with bands of two standard errors; dotted where no frame has seen anything."""
    seen = _seen(table)
    low, high = _window(table, seen)
    what = f"{table.name}, u({table.coordinate})"
    told = "; ".join(_minimum(table, k, seen[k]) for k in range(min(len(table.u), COLOURS)))
    y = f"u({table.coordinate}) / kJ mol⁻¹"
    ends = float(table.q[0]), float(table.q[-1])
    plot = Plot(what, told, table.axis, y, ends, (low, high), height=300)
    unseen = _unseen(table.q, np.asarray(seen.any(axis=0)))
    for span in unseen:
        plot.shade(*span)
    plot.rule(0.0)
    keys = []
    for k, (u, error, here) in enumerate(zip(table.u, table.error, seen, strict=True)):
        colour = f"c{k % COLOURS}"
        plot.band(table.q, u - 2 * error, u + 2 * error, colour)
        plot.line(table.q, np.where(here, u, np.nan), colour)
        plot.line(table.q, np.where(_grown(~here), u, np.nan), f"{colour} dotted")
        keys.append((colour, table.rows[k] or "refined, ± 2 standard errors"))
    if unseen:
        keys.append(("grey", "no frame has any there: extrapolated, dotted"))
    caption = "Bands: ± 2 standard errors." if len(table.u) > 1 else ""
    return Figure(plot.svg(), keys, caption)


def _seen(table: Table) -> NDArray[np.bool_]:
    """Where frames have anything, [rows, points]; everywhere where that is not known."""
    if table.density is None:
        return np.ones(table.u.shape, dtype=bool)
    return np.asarray(table.density > _LEAST)


def _window(table: Table, seen: NDArray[np.bool_]) -> tuple[float, float]:
    """What to show of u: where particles are mostly found, and some more."""
    mostly = seen.copy()
    if table.density is not None:
        mostly &= table.density > _FOUND * table.density.max(axis=1, keepdims=True)
    if not mostly.any():
        mostly[:] = True
    u = table.u[mostly & np.isfinite(table.u)]
    span = max(float(np.ptp(u)), 1e-3)
    return float(u.min()) - 0.25 * span, float(u.max()) + 0.45 * span


def _unseen(q: Array, seen: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Stretches of q that nothing was seen in."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~seen, [False]]).astype(int)))
    starts, ends = edges[::2], edges[1::2] - 1
    return [(float(q[a]), float(q[b])) for a, b in zip(starts, ends, strict=True) if b > a + 1]


def _grown(here: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With a neighbour on either side, so that lines meet."""
    grown = here.copy()
    grown[1:] |= here[:-1]
    grown[:-1] |= here[1:]
    return grown


def _minimum(table: Table, k: int, seen: NDArray[np.bool_]) -> str:
    u = np.where(seen, table.u[k], np.inf)
    i = int(np.argmin(u))
    name = f"{table.rows[k]}: " if table.rows[k] else ""
    return f"{name}smallest {table.u[k, i]:.3g} kJ/mol at {table.coordinate} = {table.q[i]:.3g}"


@dataclass(frozen=True)
class Beside:
    """One measured curve, and the model's."""

    name: str
    y: str
    """Label of the axis."""
    x: str
    x_range: tuple[float, float]
    target: Curve
    model: Curve
    unexplained: Array
    """Model less target, less what nuisances explain, [points]."""
    tends_to: float
    is_histogram: bool
    alone: str = ""
    """What a figure says that cannot be seen in it."""


def curve_figure(c: Beside) -> Figure:
    """Target and model, and below the residual in units of the target's error."""
    y_range = _span(c)
    plot = Plot(f"{c.name}: target and model", c.alone, "", c.y, c.x_range, y_range)
    plot.rule(c.tends_to)
    plot.points(c.target.x, c.target.y, "target", 2 * c.target.spread)
    spread = 2 * c.model.spread
    plot.band(c.model.x, c.model.y - spread, c.model.y + spread)
    plot.line(c.model.x, c.model.y)
    keys = [("target", "target, ± 2 errors"), ("c0", "model, ± 2 standard errors")]
    figure = _residuals(c)
    return Figure(plot.svg(), [*keys, *figure.keys], below=[figure.svg])


def _span(c: Beside) -> tuple[float, float]:
    """Of y: all of target and model, and their bars as far as they are no larger than that."""
    y, bars = np.concatenate([c.target.y, c.model.y]), 2 * c.target.spread
    low, high = float(np.nanmin(y)), float(np.nanmax(y))
    span = max(high - low, 1e-12)
    top = max(high, min(float(np.nanmax(c.target.y + bars)), high + 0.4 * span))
    if c.is_histogram and low >= -0.06 * span:
        return 0.0, top + 0.06 * span
    bottom = min(low, max(float(np.nanmin(c.target.y - bars)), low - 0.4 * span))
    return bottom - 0.06 * span, top + 0.06 * span


def _residuals(c: Beside) -> Figure:
    sigma = c.target.spread
    raw, left = (c.model.y - c.target.y) / sigma, c.unexplained / sigma
    most = float(np.nanmax(np.abs(np.concatenate([left, [2.5]]))))
    bound = min(1.1 * most, _SIGMAS)
    more = "" if most <= bound else f" {np.sum(np.abs(left) > bound)} points lie beyond the frame."
    about = (
        f"root mean square {np.sqrt(np.nanmean(left**2)):.2g}, largest {most:.2g}; the grey area "
        f"is two errors wide to either side.{more}"
    )
    title = f"{c.name}: model less target, in errors of the target"
    label = "(model − target) / error of the target"
    plot = Plot(title, about, c.x, label, c.x_range, (-bound, bound), height=_RESIDUALS)
    plot.shade(-2, 2, upright=False)
    plot.rule(0.0)
    own = 2 * c.model.spread / sigma
    plot.band(c.target.x, left - own, left + own)
    plot.line(c.target.x, left)
    keys = []
    if np.nanmax(np.abs(raw - left)) > 0.3:
        plot.line(c.target.x, raw, "c1 dotted")
        keys = [("c1", "below, dotted: with scale, background, … still in")]
    return Figure(plot.svg(), keys)


def pull(off: float, error: float) -> Markup:
    """A value off its target, in errors, with its own error: a dot on a short scale."""
    plot_range = 5.0
    place = float(np.clip(off, -plot_range, plot_range))

    def x(value: float) -> str:
        return f"{50 + 10 * float(np.clip(value, -plot_range, plot_range)):.1f}"

    bar = f'<path class="bars c0" d="M{x(off - 2 * error)},8H{x(off + 2 * error)}"/>'
    about = f"{off:.1f} errors off"
    return Markup(
        f'<svg class="pull" viewBox="-4 0 108 16" role="img" aria-label="{about}">'
        f"<title>{about}</title>"
        '<rect class="shade" x="30" y="1" width="40" height="14"/>'
        f'<path class="axes" d="M50,1V15"/>{bar if np.isfinite(error) else ""}'
        f'<path class="dots c0 big" d="M{x(place)},8h0"/></svg>'
    )


def misfit_figure(rounds: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """The misfit of each round, and of each target how far it is off beside its limit."""
    count = np.arange(1, len(rounds) + 1)
    misfit = _column(rounds, "misfit")
    each = _of_targets(rounds, len(names))
    rows = [misfit] if each is None or len(names) == 1 else [*each.T]
    y = np.concatenate(rows)
    y = y[np.isfinite(y) & (y > 0)]
    low, high = (float(y.min()), float(y.max())) if len(y) else (0.5, 2.0)
    ends = min(low, 0.7) / 1.2, max(high, 1.4) * 1.2
    about = f"from {misfit[0]:.3g} to {misfit[-1]:.3g} in {len(rounds)} rounds"
    alone = len(rows) == 1
    label = "misfit: rms of residual / error" if alone else "misfit / its limit"
    title = "Misfit per round" if alone else "Misfit of each target per round"
    across = (0.6, len(rounds) + 0.4)
    plot = Plot(title, about, "round", label, across, ends, log=True, whole=True)
    plot.rule(1.0)
    keys = []
    for k, row in enumerate(rows):
        colour = f"c{k % COLOURS}"
        plot.line(count, row, colour)
        plot.points(count, row, colour)
        keys += [] if alone else [(colour, names[k])]
    back = np.array([bool(entry.get("rolled_back")) for entry in rounds])
    if back.any():
        plot.points(count[back], np.where(back, rows[0], np.nan)[back], "back")
        keys.append(("back", "rolled back"))
    caption = "" if alone else "Below 1 a target is within what 19 of 20 right models stay below."
    return Figure(plot.svg(), keys, caption)


def overlap_figure(rounds: Sequence[Mapping[str, Any]]) -> Figure:
    """How many frames are effective in each round."""
    n = _column(rounds, "n_effective")
    count = np.arange(1, len(n) + 1)
    about = f"{n[-1]:.0f} in the last round"
    top = 1.08 * float(np.nanmax(n)) if np.isfinite(n).any() else 1.0
    across = (0.6, len(n) + 0.4)
    plot = Plot(
        "Effective frames per round", about, "round", "effective frames (n_effective)",
        across, (0.0, top), whole=True,
    )  # fmt: skip
    plot.line(count, n)
    plot.points(count, n, "c0")
    return Figure(plot.svg(), caption="Of all rounds so far, reweighted to the present parameters; "
                  "of the state point where they are fewest.")  # fmt: skip


def overlaid_figure(tables: Sequence[tuple[str, Table]]) -> Figure:
    """One function of several fits."""
    first = tables[0][1]
    windows = [_window(table, _seen(table)) for _, table in tables]
    ends = min(float(t.q[0]) for _, t in tables), max(float(t.q[-1]) for _, t in tables)
    y = min(low for low, _ in windows), max(high for _, high in windows)
    about = "; ".join(f"{name}: {_minimum(t, 0, _seen(t)[0])}" for name, t in tables)
    label = f"u({first.coordinate}) / kJ mol⁻¹"
    plot = Plot(
        f"{first.name} of {len(tables)} fits", about, first.axis, label, ends, y, height=300
    )
    plot.rule(0.0)
    keys = []
    for k, (name, table) in enumerate(tables):
        colour = f"c{k % COLOURS}"
        for u, error in zip(table.u, table.error, strict=True):
            plot.band(table.q, u - 2 * error, u + 2 * error, colour)
            plot.line(table.q, u, colour)
        keys.append((colour, name))
    return Figure(plot.svg(), keys, "Bands: ± 2 standard errors.")


def _column(rounds: Sequence[Mapping[str, Any]], key: str) -> Array:
    """Of all rounds; NaN where it is not known."""
    return np.array([np.nan if e.get(key) is None else e[key] for e in rounds], dtype=float)


def _of_targets(rounds: Sequence[Mapping[str, Any]], n: int) -> Array | None:
    """Misfit over limit of every target, [rounds, targets]; None where rounds do not say it."""
    rows = [entry.get("excesses") or [np.nan] * n for entry in rounds]
    if any(len(row) != n for row in rows):
        return None
    return np.array(rows, dtype=float)
