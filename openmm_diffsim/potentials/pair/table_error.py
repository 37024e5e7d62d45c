"""How far the spline of an analytic or neural potential is from the form it interpolates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ...units import MOLAR_GAS_CONSTANT, value_in_md_units

Array = NDArray[np.float64]

_REACH = 10.0  # kT: a Boltzmann factor of 5e-5
_BEND = 4  # knots; at r_min the spline bends into its line, and forgets it by 0.268 per knot
_PER_KNOT = 8


@dataclass(frozen=True)
class TableError:
    """The largest errors of a spline, of all pairs of types that are learned."""

    energy: float  # kJ/mol
    energy_at: float  # nm
    force: float  # relative to |F(r)|, or to its mean where the force is smaller than that
    force_at: float  # nm

    @property
    def largest(self) -> float:
        """What a tolerance bounds: the larger of the two numbers."""
        return max(self.energy, self.force)


def table_error(pair: Any, temperature: float, r: ArrayLike | None = None) -> TableError:
    """See ``AnalyticPair.table_error``."""
    basis = pair.basis
    if r is None:
        intervals = basis.knots - 1 - _BEND
        steps = (np.arange(intervals * _PER_KNOT) + 0.5) / _PER_KNOT
        points = basis.r_min + basis.spacing * (_BEND + steps)
    else:
        points = np.atleast_1d(np.asarray(value_in_md_units(r, "length")))
    u, f = _closed_form(pair, points)
    with torch.no_grad():
        du = np.abs(pair.energy(points).numpy() - u)
        df = np.abs(pair.force(points).numpy() - f)
    given = ~pair.learned_rows()
    du[given], df[given] = 0.0, 0.0
    if r is None:
        reached = u < _REACH * MOLAR_GAS_CONSTANT * temperature
        du, df, f = (np.where(reached, array, 0.0) for array in (du, df, f))
        mean = np.abs(f).sum(axis=1) / np.maximum(reached.sum(axis=1), 1)
    else:
        mean = np.abs(f).mean(axis=1)
    scale = np.maximum(np.abs(f), mean[:, None])
    relative = np.divide(df, scale, out=np.zeros_like(df), where=scale > 0)
    return TableError(
        float(du.max()),
        float(points[du.max(axis=0).argmax()]),
        float(relative.max()),
        float(points[relative.max(axis=0).argmax()]),
    )


def _closed_form(pair: Any, points: Array) -> tuple[Array, Array]:
    """u and -du/dr, [pairs of types, points]."""
    r = torch.tensor(points, requires_grad=True)
    with torch.enable_grad():
        u = pair.switched_form(r)
        slopes = [torch.autograd.grad(row.sum(), r, retain_graph=True)[0] for row in u]
    return u.detach().numpy(), -torch.stack(slopes).numpy()
