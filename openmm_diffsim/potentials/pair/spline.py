"""A free-form pair potential: the spline coefficients themselves are the parameters."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ...errors import PotentialError
from ...limits import Limit, checked_whole
from ...units import value_in_md_units
from .base import PairPotential, checked, in_nm
from .basis import SplineBasis

Array = NDArray[np.float64]

_COVERED = 2 / 3  # of r_min to the cutoff: what a table has to say something of
_FAR, _CORE = 3.0, 20.0  # cutoffs and kJ/mol: a table far beyond with more than that at the cutoff


class SplinePair(PairPotential):
    """Free cubic B-spline coefficients, with a core that cannot turn attractive.

    Below the core radius the coefficients are forced to fall by at least ``core_slope`` times the
    spacing from each to the next, c_k = c_{k+1} + max(p_k - p_{k+1}, core_slope * spacing), where
    p are the parameters. Falling coefficients make a falling spline, so u'(r) <= -core_slope up
    to the last knot within the core radius, whatever the optimizer does in the range that no pair
    ever visits. Elsewhere c = p.

    Parameters
    ----------
    r_min, cutoff, knots, n_types
        See ``SplineBasis`` and ``PairPotential``.
    core_radius : float or [pairs of types], optional
        nm. Default: ``r_min``, so that only the slope at and below it is bound.
    core_slope : float
        Least steepness of the core, kJ/mol/nm.

    Attributes
    ----------
    values : Parameter [pairs of types, coefficients]
        p, kJ/mol; zero at the start.
    """

    is_linear = True
    depends_on_temperature = False
    is_free_form = True
    core_radius: Tensor
    core_attraction: Tensor

    def __init__(
        self,
        r_min: float,
        cutoff: float,
        knots: int = 60,
        n_types: int = 1,
        core_radius: ArrayLike | None = None,
        core_slope: float = 50.0,
        name: str | None = None,
    ) -> None:
        super().__init__(SplineBasis(r_min, cutoff, knots), n_types, name)
        self.core_slope = float(checked("core_slope", core_slope))
        self.values = nn.Parameter(
            torch.zeros(self.n_pairs, self.basis.n_coefficients, dtype=torch.float64)
        )
        for name in ("core_radius", "core_attraction"):
            self.register_buffer(name, torch.empty(self.n_pairs, dtype=torch.float64))
        self.set_core(r_min if core_radius is None else core_radius)

    def set_core(self, radius: ArrayLike, attraction: ArrayLike = 0.0) -> None:
        """Set the core radius, nm, and A, kJ/mol nm: one number or one per pair of types each."""
        self.core_radius[:] = self.per_pair("core_radius", radius).detach()
        self.core_attraction[:] = self.per_pair("core_attraction", attraction).detach()

    def unbound_coefficients(self, temperature: float | None = None) -> Tensor:
        """p, [pairs of types, coefficients]."""
        return self.values

    def with_core(self, coefficients: Tensor) -> Tensor:
        """Coefficients that fall in the core by what they have to, from each to the next."""
        fall = coefficients[:, :-1] - coefficients[:, 1:]
        in_core = self.centers[:-1] <= self.core_radius[:, None] + 1e-9
        missing = torch.where(in_core, (self._least_fall() - fall).clamp(min=0.0), 0.0)
        lift = missing.flip(1).cumsum(1).flip(1)
        return coefficients + torch.nn.functional.pad(lift, (0, 1))

    def _least_fall(self) -> Tensor:
        """In the core, kJ/mol, [pairs of types, coefficients - 1]."""
        size = self.core_radius[:, None]
        r = torch.maximum(self.centers[:-1], 0.5 * size)  # deeper, the repulsion grows no more
        born = self.core_attraction[:, None] * size**4 / r**6
        spacing = self.centers[1] - self.centers[0]
        return spacing * (self.core_slope + torch.where(size > 0, born, 0.0))

    @torch.no_grad()
    def set_coefficients(self, coefficients: Tensor | ArrayLike) -> "SplinePair":
        """Set the parameters to [pairs of types, coefficients], kJ/mol. Returns self."""
        array = torch.as_tensor(coefficients, dtype=torch.float64)
        if array.shape != self.values.shape or not bool(torch.isfinite(array).all()):
            raise PotentialError(
                f"expected finite coefficients of shape {tuple(self.values.shape)}, got "
                f"{tuple(array.shape)}"
                + ("" if array.shape != self.values.shape else " with a NaN or an infinity"),
                got=tuple(array.shape),
                expected=tuple(self.values.shape),
            )
        self.values.copy_(array)
        self.given.copy_(array)
        return self

    def set_table(self, r: ArrayLike, u: ArrayLike, pair: int = 0) -> "SplinePair":
        """Take one pair of types from a table u(r), kJ/mol at nm. Returns self.

        The table is interpolated by cubic Hermite pieces without overshoot; below its first
        point it goes on with its first slope, and it is shifted to zero at its last point or at
        the cutoff, whichever comes first.

        Raises
        ------
        PotentialError
            If r does not rise, a number is not finite, the table covers less than two thirds of
            r_min to the cutoff, or all of that lies in the core of one that goes on far beyond.
        """
        from scipy.interpolate import PchipInterpolator

        known = Limit(0, self.n_pairs - 1, "counts the pairs of types (0,0), (0,1), ..., (1,1)")
        pair = checked_whole("pair", pair, PotentialError, known)
        r, u = in_nm(r), np.asarray(value_in_md_units(u, "energy"))
        if r.ndim != 1 or r.shape != u.shape or len(r) < 4 or np.any(np.diff(r) <= 0):
            raise PotentialError(
                "expected a table of at least 4 points with rising r, got shapes "
                f"{r.shape} and {u.shape}",
                shape_r=r.shape,
                shape_u=u.shape,
            )
        _check_range(r, u, self.basis)
        curve = PchipInterpolator(r, u)
        end = min(r[-1], self.basis.cutoff)
        x = self.basis.centers
        table = np.where(x < end, curve(np.clip(x, r[0], end)) - curve(end), 0.0)
        below = x < r[0]
        table[below] += (x[below] - r[0]) * (u[1] - u[0]) / (r[1] - r[0])
        with torch.no_grad():
            self.values[pair] = self.basis.interpolate(torch.from_numpy(table))
            self.given[pair] = self.values[pair]
        return self


def _check_range(r: Array, u: Array, basis: SplineBasis) -> None:
    """Raise where a table says little of r_min to the cutoff, or seems to be in angstrom."""
    if not (np.all(np.isfinite(r)) and np.all(np.isfinite(u))):
        raise PotentialError("expected finite numbers in a table of u(r), got NaN or infinity")
    low, high = basis.r_min, basis.cutoff

    def covered(ends: Array) -> float:
        return float((min(ends[-1], high) - max(ends[0], low)) / (high - low))

    got = f"a table of u(r) from {r[0]:.4g} to {r[-1]:.4g} nm"
    if covered(r) < _COVERED:
        hint = "it would in angstrom" if covered(r / 10) >= _COVERED else "write 0 where u is 0"
        raise PotentialError(
            f"got {got}, expected it to cover r_min = {low:.4g} nm to the cutoff, {high:.4g} nm, "
            f"or two thirds of that; {hint}",
            got=(float(r[0]), float(r[-1])),
            expected=(low, high),
        )
    reach = float(np.interp(high, r, u) - u[-1])
    if r[-1] > _FAR * high and reach > _CORE:
        raise PotentialError(
            f"got {got} with u = {reach:.4g} kJ/mol above its end at the cutoff, {high:.4g} nm: "
            "up to there it is all core. Is r in angstrom? Else end the table at the cutoff",
            got=reach,
        )
