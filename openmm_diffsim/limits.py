"""What numbers may be: a range for each that a user gives, and the reason for it.

A number beyond its range ends in an overflow, a run without end or more memory than there is: it
is a slip, such as a unit, and is refused where it is given. Keys of a configuration and arguments
of classes have one name here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Limit:
    """The least and the largest number that something may be, both allowed."""

    least: float
    most: float
    why: str
    """What a number beyond them means; it completes "expected ...; "."""

    def error(self, what: str, value: object) -> str:
        """What to say of a value that is not ``what``, "a number" or "a whole number"."""
        span = f"from {_short(self.least)} to {_short(self.most)}"
        return f"got {shown(value)}, expected {what} {span}; {self.why}"


_INT = 2**31 - 2  # OpenMM counts in 32 bits, and seeds are raised by one

LIMITS = {
    # of a System
    "particles": Limit(10, 10**6, "names of more take more memory than their positions"),
    "number_density": Limit(1e-9, 1e6, "in 1/nm^3; water has 33"),
    "mass_density": Limit(1e-9, 1e6, "in g/cm3; water has 1"),
    "mass": Limit(1e-6, 1e12, "in amu; argon has 40"),
    "position": Limit(-1e6, 1e6, "in nm"),
    # of dynamics
    "temperature": Limit(1e-6, 1e9, "in K"),
    "timestep": Limit(1e-9, 0.5, "in ps (5 fs are 0.005)"),
    "pressure": Limit(-1e6, 1e6, "in bar"),
    "friction": Limit(1e-9, 1e9, "in 1/ps"),
    "threads": Limit(1, 1024, "one for each core"),
    # of potentials
    "n_types": Limit(1, 100, "pairs of types have the square of it"),
    "core_slope": Limit(1e-9, 1e12, "in kJ/mol/nm"),
    "wall_slope": Limit(1e-9, 1e12, "in kJ/mol/nm"),
    "prior_length": Limit(1e-6, 1e6, "in nm or rad"),
    "centers": Limit(2, 500, "there are 24 knots for each"),
    "hidden": Limit(1, 100_000, "counts neurons of a layer"),
    "tolerance": Limit(1e-12, 1.0, "of an energy in kJ/mol, and relative of a force"),
    "cutoff": Limit(1e-3, 1e6, "in nm"),
    "core_radius": Limit(0, 1e6, "in nm"),
    "core_attraction": Limit(0, 1e12, "in kJ/mol nm"),
    "r_min": Limit(1e-4, 1e6, "in nm"),
    "knots": Limit(6, 2000, "matrices have the square of it as numbers"),
    "sigma": Limit(1e-4, 1e6, "in nm"),
    "r_0": Limit(1e-4, 1e6, "in nm"),
    "epsilon": Limit(0, 1e9, "in kJ/mol"),
    "depth": Limit(0, 1e9, "in kJ/mol"),
    "strength": Limit(-1e9, 1e9, "in kJ/mol nm"),
    "width": Limit(1e-6, 1e6, "in 1/nm"),
    "kappa": Limit(0, 1e6, "in 1/nm"),
    "repulsive": Limit(1e-3, 1000, "an exponent"),
    "attractive": Limit(1e-3, 1000, "an exponent"),
    "exponent": Limit(1e-3, 1000, "an exponent"),
    "prior_sigma": Limit(1e-4, 1e6, "in nm"),
    "prior_epsilon": Limit(0, 1e9, "in kJ/mol"),
    "energy": Limit(-1e15, 1e15, "in kJ/mol"),
    # of observables
    "block": Limit(-1000, 1000, "counts the tables of a file; negative ones from the last"),
    "exclude_bonds": Limit(0, 3, "1 leaves out 1-2 pairs, 2 also 1-3, 3 also 1-4, 0 none"),
    "r_max": Limit(1e-3, 1e6, "in nm"),
    "bins": Limit(1, 4000, "a covariance has the square of it as numbers"),
    "length": Limit(1e-6, 1e6, "in ps"),
    "segments_every": Limit(1, 10**6, "counts frames"),
    # of targets
    "value": Limit(-1e12, 1e12, "in md units"),
    "uncertainty": Limit(1e-12, 1e12, "it is squared, and divided by"),
    "background": Limit(1.0, 100.0, "vacuum has 1"),
    "interfaces": Limit(1, 100, "a slab has 2"),
    "n": Limit(1, 10**9, "counts molecules"),
    "correction": Limit(-1e6, 1e6, "in kJ/mol"),
    "weight": Limit(1e-9, 1e9, "multiplies the share of a target in the misfit"),
    "window": Limit(0, 1e9, "in md units"),
    "resolution": Limit(1e-9, 1e9, "a standard deviation, in md units of the axis"),
    "scale": Limit(0, 1, "a relative uncertainty (0.01 is a per cent)"),
    "offset": Limit(0, 1e12, "an uncertainty, it is squared"),
    "broadening": Limit(0, 1e9, "a standard deviation, in md units of the axis"),
    "shift": Limit(0, 1e9, "an uncertainty, in md units of the axis"),
    "amplitude": Limit(1e-12, 1e12, "a standard deviation, it is squared"),
    "correlation_length": Limit(1e-9, 1e9, "in md units of the axis"),
    "integral": Limit(1e-12, 1e12, "values were divided by it"),
    "rows": Limit(1, 20_000, "a model has fewer bins: average neighbouring points"),
    # of a fit
    "workers": Limit(1, 10_000, "one for each core or GPU"),
    "replicas": Limit(1, 10_000, "each is a run of its own in every round"),
    "staleness": Limit(0, 1000, "counts rounds; 0 waits for all"),
    "rounds": Limit(1, 10_000, "all frames of all rounds are kept"),
    "steps": Limit(1, _INT, "OpenMM counts in 32 bits"),
    "every": Limit(1, _INT, "OpenMM counts in 32 bits"),
    "equilibration": Limit(0, _INT, "OpenMM counts in 32 bits"),
    "seed": Limit(0, _INT, "OpenMM takes 32 bits"),
    "largest_step": Limit(1e-9, 1e9, "in kT"),
    "deviation": Limit(1e-12, float("inf"), "a standard deviation"),
    # of methods
    "damping": Limit(1e-6, 10.0, "multiplies a step"),
    "least_g": Limit(1e-6, 0.5, "of a g that goes to 1"),
    "learning_rate": Limit(1e-12, 1e6, "multiplies a step"),
    "least_overlap": Limit(1e-6, 1.0, "a share of the effective frames"),
    # of Gauss-Newton, one for each field of its options
    "prior_frames": Limit(0, 1e15, "how many frames theory is trusted like"),
    "roughness": Limit(1e-9, 1e15, "in (kT)^2 / (distance of nearest neighbours)^3"),
    "digitised_roughness": Limit(1e-9, 1e15, "in (kT)^2 / (distance of nearest neighbours)^3"),
    "network_steps": Limit(1, 10_000, "steps of one update of a network"),
    "stride": Limit(1e-9, 1e6, "a variance of U/kT, per particle"),
}
"""By the name of a key or an argument."""

_ANY = Limit(-1e12, 1e12, "larger ones lose their last digits, or are slips")
_ANY_WHOLE = Limit(0, _INT, "OpenMM counts in 32 bits")


def limit_of(name: str, whole: bool = False) -> Limit:
    """The range of a number of that name; a wide one for a name that nobody knows here."""
    return LIMITS.get(name, _ANY_WHOLE if whole else _ANY)


def checked_number(
    name: str, value: Any, error: Callable[..., Exception], limit: Limit | None = None
) -> float:
    """``value`` as a float within its range; ``error`` is raised where it is none."""
    known = limit or limit_of(name)
    plain = isinstance(value, Real) and not isinstance(value, bool)
    if not plain or not known.least <= value <= known.most:
        raise _refusal(error, name, value, known.error("a number", value))
    return float(value)


def checked_whole(
    name: str, value: Any, error: Callable[..., Exception], limit: Limit | None = None
) -> int:
    """``value`` as an int within its range; ``error`` is raised where it is none."""
    known = limit or limit_of(name, whole=True)
    try:
        whole = not isinstance(value, bool | str) and int(value) == value
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or not known.least <= value <= known.most:
        raise _refusal(error, name, value, known.error("a whole number", value))
    return int(value)


def checked_indices(
    name: str, given: Any, error: Callable[..., Exception], n: int | None = None
) -> NDArray[np.int64]:
    """Different indices 0 .. n - 1, int [indices]; ``error`` is raised where these are none.

    Also of a boolean mask, as of an array: the places where it is true. ``n``: how many there are,
    if that is known.
    """
    array = _array(given)
    is_mask = array.dtype.kind == "b" and (n is None or len(array) == n)
    if is_mask:
        array = np.flatnonzero(array)
    span = "indices >= 0" if n is None else f"indices 0 .. {n - 1}"
    if array.dtype.kind not in "iu" and array.size:
        like = "" if n is None else f" of {n}"
        what = f"got {shown(given)}, expected {span}, or a mask{like} that is true for those meant"
    elif not array.size:
        what = f"got none{' by a mask' if is_mask else ''}, expected one or more {span}"
    elif array.min() < 0 or (n is not None and array.max() >= n):
        what = f"got {array.min()} .. {array.max()}, expected {span}"
    elif len(np.unique(array)) < len(array):
        values, times = np.unique(array, return_counts=True)
        what = f"got {values[np.argmax(times)]} twice, expected {span}, each of them once"
    else:
        return array.astype(np.int64)
    raise error(f"{name}: {what}", got=given, limit=None if n is None else n - 1)


def _array(given: Any) -> NDArray[Any]:
    """Flat, of numbers in any shape, or of a row; of an object if it is something else."""
    try:
        array = np.asarray(given)
    except (TypeError, ValueError):  # of different lengths
        return np.array([None], dtype=object)
    is_list = array.ndim == 1 or (array.ndim > 1 and array.dtype.kind in "iu")
    return array.ravel() if is_list else np.array([None], dtype=object)


def shown(value: object, most: int = 60) -> str:
    """``repr(value)`` in one line that is not too long."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # Python writes no more than 4300 digits
        return "a number of thousands of digits" if isinstance(value, int) else "something endless"
    return text if len(text) <= most else f"{text[:most]}..."


def _refusal(error: Callable[..., Exception], name: str, value: object, what: str) -> Exception:
    return error(f"{name}: {what}", **{name.rpartition(".")[2]: value, "got": value})


def _short(number: float) -> str:
    return str(int(number)) if abs(number) < 1e7 and number == int(number) else f"{number:g}"
