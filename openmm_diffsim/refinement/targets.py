"""Targets: what was measured, how well, and at which state point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import TargetError
from ..io import RDFData, clean_rdf, read_rdf
from ..observables import RDF, Observable
from ..statepoint import StatePoint
from ..units import value_in_md_units

Array = NDArray[np.float64]


class Target:
    """A measured value of an observable at a state point.

        Target(liquid, rdf, r, g, uncertainty=0.02)              # r in nm
        Target(liquid, Pressure(), 1.0, uncertainty=50.0)        # bar

    A measured g(r) may be irregular, unsorted and end in NaN: it is compared where it was
    measured, with the model's g(r) interpolated linearly between bin centres. Points outside the
    bins of the observable, or outside ``window``, do not count.

    Parameters
    ----------
    state_point : StatePoint
    observable : Observable
    *data : ``r, g`` for an RDF, ``value`` for a scalar
    uncertainty : float or array like the data
        Standard error of the measurement, in its units. Points of an array that are zero (a bin
        without counts) get the median of the others.
    weight : float
        Multiplies this target's share of the misfit.
    window : (float, float), optional
        nm; only points inside are compared.
    noise : "auto", "sampled" or "independent"
        How the errors of a g(r) hang together. "sampled": counted in a simulation of as many
        particles, so that the errors of different r are correlated just like the fluctuations of
        the model; long waves are then known far better than the single points say. "independent":
        each point for itself, as digitised from a figure. "auto": sampled where the errors vary
        with r just as those of a simulation do (to a factor of 1.5 or so), else independent.

    Attributes
    ----------
    r : array [points], nm, or None for a scalar
    values, uncertainty : arrays [points]
    operator : array [points, observable.n_values]; prediction = operator @ <observable>

    Raises
    ------
    TargetError
        If the data cannot be what they are said to be, with what was got and expected.
    """

    def __init__(
        self,
        state_point: StatePoint,
        observable: Observable,
        *data: Any,
        uncertainty: Any,
        weight: float = 1.0,
        window: tuple[float, float] | None = None,
        noise: str = "auto",
    ) -> None:
        if noise not in ("auto", "sampled", "independent"):
            raise TargetError(
                f"noise: expected 'auto', 'sampled' or 'independent', got {noise!r}", got=noise
            )
        if not (np.isfinite(weight) and weight > 0):
            raise TargetError(f"weight: expected a positive number, got {weight}", got=weight)
        self.state_point = state_point
        self.observable = observable
        self.weight = float(weight)
        self.noise = noise
        self.r: Array | None = None
        if isinstance(observable, RDF):
            if len(data) != 2:
                raise TargetError(f"an RDF target needs r and g, got {len(data)} arrays")
            self._take_rdf(observable, data[0], data[1], uncertainty, window)
        else:
            if len(data) != 1:
                raise TargetError(f"a scalar target needs one value, got {len(data)}")
            self.values = np.atleast_1d(np.asarray(value_in_md_units(data[0], "pressure")))
            self._check_shape("value", self.values, (observable.n_values,))
            error = np.asarray(value_in_md_units(uncertainty, "pressure"), dtype=np.float64)
            self.uncertainty = self._spread(error, self.values.shape)
            self.operator: Array = np.eye(observable.n_values)
        self._check()

    @classmethod
    def from_file(
        cls,
        state_point: StatePoint,
        observable: RDF,
        path: str | Path,
        length_unit: str = "nm",
        uncertainty: float | None = None,
        **options: Any,
    ) -> Target:
        """A g(r) from a text file: see ``openmm_diffsim.io.read_rdf`` for what it may look like.

        ``uncertainty`` may be left out where the file has a third column.
        """
        data = read_rdf(path, length_unit)
        error = data.error if uncertainty is None else uncertainty
        if error is None:
            raise TargetError(f"{path}: has no error column, so uncertainty= is needed", path=path)
        return cls(state_point, observable, data.r, data.g, uncertainty=error, **options)

    def frames_share(self, one_frame: Array) -> float | None:
        """Variance of the target over that of one frame of the model, or None if independent.

        ``one_frame`` [points] is the variance of each point in one frame.
        """
        if self.r is None or self.noise == "independent":
            return None
        seen = self.values > 0.3
        if seen.sum() < (20 if self.noise == "auto" else 1):
            return None
        if self.noise == "auto" and np.ptp(self.uncertainty[seen]) == 0:
            return None
        ratio = np.log(self.uncertainty[seen] ** 2 / one_frame[seen])
        if self.noise == "auto" and 1.4826 * np.median(np.abs(ratio - np.median(ratio))) > 0.8:
            return None
        return float(np.exp(np.median(ratio)))

    def _take_rdf(
        self,
        rdf: RDF,
        r: Any,
        g: ArrayLike,
        uncertainty: Any,
        window: tuple[float, float] | None,
    ) -> None:
        r = np.asarray(value_in_md_units(r, "length"), dtype=np.float64)
        error = self._spread(np.asarray(uncertainty, dtype=np.float64), r.shape)
        data: RDFData = clean_rdf(r, g, error)
        assert data.error is not None
        low, high = window or (0.0, np.inf)
        inside = (data.r >= max(low, rdf.r[0])) & (data.r <= min(high, rdf.r[-1]))
        if inside.sum() < 3:
            raise TargetError(
                f"only {inside.sum()} points of the target lie between {max(low, rdf.r[0]):.4f} "
                f"and {min(high, rdf.r[-1]):.4f} nm, where it is compared",
                n_points=int(inside.sum()),
            )
        self.r = data.r[inside]
        self.values = data.g[inside]
        self.uncertainty = _fill_zeros(data.error[inside])
        self.operator = interpolation_matrix(rdf.r, self.r)

    def _spread(self, error: Array, shape: tuple[int, ...]) -> Array:
        """One error for every value."""
        if error.ndim:
            self._check_shape("uncertainty", error, shape)
        return np.broadcast_to(error, shape).copy()

    @staticmethod
    def _check_shape(name: str, array: Array, expected: tuple[int, ...]) -> None:
        if array.shape != expected:
            raise TargetError(
                f"{name}: expected an array of shape {expected}, got one of shape {array.shape}",
                got=array.shape,
                expected=expected,
            )

    def _check(self) -> None:
        if not np.all(np.isfinite(self.values)):
            raise TargetError(f"expected finite values, got {self.values}")
        if not np.all(np.isfinite(self.uncertainty) & (self.uncertainty > 0)):
            raise TargetError(
                "uncertainty: expected positive numbers, got a smallest of "
                f"{self.uncertainty.min()}"
            )


def interpolation_matrix(grid: Array, r: Array) -> Array:
    """Linear interpolation from a regular ``grid`` [n] to ``r`` [m], shape [m, n]."""
    x = (r - grid[0]) / (grid[1] - grid[0])
    cell = np.clip(np.floor(x + 1e-9).astype(np.int64), 0, len(grid) - 2)
    fraction = np.clip(x - cell, 0.0, 1.0)
    matrix = np.zeros((len(r), len(grid)))
    rows = np.arange(len(r))
    matrix[rows, cell] = 1 - fraction
    matrix[rows, cell + 1] += fraction
    return matrix


def _fill_zeros(error: Array) -> Array:
    positive = error > 0
    if not positive.any():
        raise TargetError("uncertainty: expected positive numbers, got only zeros")
    return np.where(positive, error, np.median(error[positive]))
