"""One curve for files, targets, results and figures, and the axis that a model's curve has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from .errors import TargetError
from .limits import LIMITS
from .units import UNIT_NAMES

Array = NDArray[np.float64]

MOST_POINTS = int(LIMITS["rows"].most)
"""Of a measured curve; no model's bins are that fine."""

_ROUNDING = 1e-6  # of the range of an axis: how far outside a point may lie that was rounded


@dataclass(frozen=True)
class Curve:
    """Values over an abscissa, in md units."""

    x: Array
    """[n], ascending, each once."""
    y: Array
    """[n]."""
    error: Array | None = None
    """[n], standard error of y; None where it is not known."""
    covariance: Array | None = None
    """[n, n], of y; None where all that is known is ``error``."""
    path: Path | None = None
    """The file it was read from, if any."""
    n_dropped: int = 0
    """Rows of its source that were left out because x or y was NaN."""

    def __post_init__(self) -> None:
        """Raises TargetError where the shapes differ, x does not rise, or points are too many."""
        n = np.shape(self.x)
        expected = {"y": n, "error": n, "covariance": n + n}
        for name, shape in {"x": (len(self.x),), **expected}.items():
            array = getattr(self, name)
            if array is not None and np.shape(array) != shape:
                raise TargetError(
                    f"{name} of a curve: expected the shape {shape}, got {np.shape(array)}"
                )
        if len(self.x) > MOST_POINTS:
            raise TargetError(
                f"got a curve of {len(self.x)} points, expected at most {MOST_POINTS}: average "
                "neighbouring ones, as no model is that fine",
                path=self.path,
            )
        if not np.all(np.diff(self.x) > 0):
            raise TargetError("x of a curve: expected rising numbers; io.tidy() sorts them")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def spread(self) -> Array:
        """``error``, or NaN where it is not known, [n]."""
        return np.full_like(self.y, np.nan) if self.error is None else self.error

    def at(self, places: NDArray[np.bool_]) -> Curve:
        """The points where ``places``, bool [n], is true."""
        return replace(
            self,
            x=self.x[places],
            y=self.y[places],
            error=None if self.error is None else self.error[places],
            covariance=None if self.covariance is None else self.covariance[places][:, places],
        )


@dataclass(frozen=True)
class Axis:
    """Where a model's values are, and what lies between them."""

    name: str
    """Such as "r"."""
    kind: str
    """Of a place on it, one of ``units.UNIT_NAMES``, such as "length"."""
    values: Array
    """[n_values], ascending, md units."""
    between: str = "linear"
    """How values between are found: "linear", or "spline" for a cubic one of smooth values."""

    @property
    def unit(self) -> str:
        """The md unit, such as "nm"; empty for a plain number."""
        return UNIT_NAMES[self.kind]

    @property
    def column(self) -> str:
        """The head of its column in a table, such as "r_nm"."""
        unit = self.unit.replace("/", "_per_").replace("1_per", "per").replace("^", "")
        return f"{self.name}_{unit}" if unit else self.name

    @property
    def ends(self) -> tuple[float, float]:
        """The first and the last place that can be compared."""
        first, last = float(self.values[0]), float(self.values[-1])
        slack = _ROUNDING * (last - first) if self.between == "spline" else 0.0
        return first - slack, last + slack

    def operator(self, x: Array) -> Array:
        """From values on the axis to those at ``x`` [points], matrix [points, n_values]."""
        find = spline_matrix if self.between == "spline" else interpolation_matrix
        return find(self.values, x)


@dataclass(frozen=True)
class CurveRules:
    """What a kind of measured curve is called, and what it may hold."""

    name: str
    """What messages call one that came from no file, such as "g(r)"."""
    x: str
    y: str
    """Names of the columns."""
    x_kind: str
    """Kind of number that x is, see ``units``."""
    least_x: float = 0.0
    """Smaller x are refused."""
    least_y: float = -np.inf
    expected_y: str = "a number"
    """What a message expects in place of a smaller y."""
    fewest_rows: int = 5
    growth: float = 0.0
    """Counts in a bin, for a y of 1, go as x to this power times the width of the bin."""
    units: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Units that x may have in a file, the first by default, each with what it multiplies x and y
    by to give md units. None: the md unit."""

    @property
    def accepted(self) -> Mapping[str, tuple[float, float]]:
        """``units``, or the md unit alone."""
        return self.units or {UNIT_NAMES[self.x_kind]: (1.0, 1.0)}

    @property
    def default_unit(self) -> str:
        """The unit that x has in a file unless another is named."""
        return next(iter(self.accepted))

    @property
    def unit_key(self) -> str:
        """What a configuration calls the unit, such as "length_unit"."""
        return f"{self.x_kind}_unit"

    def axis(self, values: Array, between: str = "linear") -> Axis:
        """An axis for models of such curves."""
        return Axis(self.x, self.x_kind, values, between)


def interpolation_matrix(grid: Array, x: Array) -> Array:
    """Linear interpolation from an ascending ``grid`` [n] to ``x`` [m], shape [m, n].

    It goes on flat beyond the grid.
    """
    cell = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2)
    fraction = np.clip((x - grid[cell]) / (grid[cell + 1] - grid[cell]), 0.0, 1.0)
    matrix = np.zeros((len(x), len(grid)))
    rows = np.arange(len(x))
    matrix[rows, cell] = 1 - fraction
    matrix[rows, cell + 1] += fraction
    return matrix


def spline_matrix(grid: Array, x: Array) -> Array:
    """Cubic spline interpolation from an ascending ``grid`` [n] to ``x`` [m], shape [m, n]."""
    if len(grid) < 4:
        return interpolation_matrix(grid, x)
    return np.asarray(CubicSpline(grid, np.eye(len(grid)))(np.clip(x, grid[0], grid[-1])))
