"""Tables of the functions of one coordinate that a potential consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from .. import io
from ..refinement import Refinement
from ..units import MOLAR_GAS_CONSTANT, UNIT_NAMES, ReducedUnits

Array = NDArray[np.float64]

_POINTS = 400
_PAIR = "pair"


@dataclass(frozen=True, eq=False)
class FunctionTable:
    """u of one term at a temperature, for each of its types or pairs of types."""

    term: str
    """Name of the term."""
    kind: str
    """ "pair", "bond", "angle" or "dihedral"."""
    file: str
    """Without an ending."""
    q: Array  # [points], nm or rad
    u: Array  # [types or pairs of types, points], kJ/mol
    error: Array  # the same
    temperature: float  # K
    quantity: str = "length"

    @property
    def is_pair(self) -> bool:
        """Is it one of the distance of any two particles?"""
        return self.kind == _PAIR

    def csv(self, units: ReducedUnits | None = None) -> bytes:
        """One column and its error for each type or pair of types; in md or in reduced units."""
        of_q, of_u = (1.0, 1.0)
        names = [f"{self._symbol}_{UNIT_NAMES[self.quantity]}", "u_kJ_mol"]
        if units is not None:
            of_q, of_u = units.factor(self.quantity), units.factor("energy")
            names = [f"{self._symbol}_reduced", "u_reduced"]
        labels = self._labels()
        header = [names[0], *(f"{names[1]}{of},standard_error{of}" for of in labels)]
        columns = [column for pair in zip(self.u, self.error, strict=True) for column in pair]
        return io.csv_bytes(",".join(header), self.q / of_q, *(c / of_u for c in columns))

    @property
    def _symbol(self) -> str:
        return {"pair": "r", "bond": "r", "angle": "theta", "dihedral": "phi"}.get(self.kind, "q")

    def _labels(self) -> list[str]:
        if self.is_pair:
            return pairs_of_types(len(self.u), "_{}_{}")
        return [f"_{k}" for k in range(len(self.u))] if len(self.u) > 1 else [""]


def pairs_of_types(n_pairs: int, text: str) -> list[str]:
    """What to call each pair of types; nothing where there is one."""
    n_types = int((2 * n_pairs) ** 0.5)
    pairs = [text.format(a, b) for a in range(n_types) for b in range(a, n_types)]
    return pairs if n_pairs > 1 else [""]


def function_tables(fit: Refinement) -> list[FunctionTable]:
    """Of every term that is a function: pairs first; at each temperature where that counts."""
    return [_table(fit, name, kind, file, kelvin) for name, kind, file, kelvin in _places(fit)]


def function_files(fit: Refinement) -> list[str]:
    """What their files are called, without an ending."""
    return [file for _, _, file, _ in _places(fit)]


def _places(fit: Refinement) -> list[tuple[str | int, str, str, float]]:
    """Term, kind, file and temperature of each table."""
    potential = fit.potential
    pairs = [function for _, function in potential.pairs()]
    others = [f for _, f in potential.functions() if all(f is not pair for pair in pairs)]
    called = [str(getattr(f, "called", "function")) for f in others]
    first = fit.states[0].temperature
    found: list[tuple[str | int, str, str, float]] = []
    for k, pair in enumerate(pairs):
        file = "potential" if len(pairs) == 1 else f"potential_{pair.name}"
        found += [(k, _PAIR, f"{file}{of}", kelvin) for of, kelvin in _temperatures(fit, k)]
    for function, kind in zip(others, called, strict=True):
        file = kind if called.count(kind) == 1 else f"{kind}_{function.name}"
        found.append((function.name, kind, file, first))
    return found


def _temperatures(fit: Refinement, term: int) -> list[tuple[str, float]]:
    """Of the first state, and of all by their names where the potential depends on it."""
    states, (where, _) = fit.states, fit.potential.pairs()[term]
    theta = fit.view().parameters
    rows = [
        fit.potential.coefficients_at(theta, state.temperature)[where].numpy(force=True)
        for state in states
    ]
    first = [("", states[0].temperature)]
    if all(np.array_equal(row, rows[0]) for row in rows):
        return first
    return first + [
        (f"_{name}", s.temperature) for name, s in zip(names_of(fit), states, strict=True)
    ]


def names_of(fit: Refinement) -> list[str]:
    """Of the state points, as files are called by them."""
    return [state.state_point.name or f"state{k}" for k, state in enumerate(fit.states)]


def _table(fit: Refinement, term: str | int, kind: str, file: str, kelvin: float) -> FunctionTable:
    where = dict(enumerate(f for _, f in fit.potential.pairs()))
    where |= {f.name: f for _, f in fit.potential.functions()}
    function: Any = where[term]  # type: ignore[index]
    basis = function.basis
    low, high = (basis.r_min, basis.cutoff) if kind == _PAIR else (basis.low, basis.high)
    q = np.linspace(low, high, _POINTS)
    u, error = fit.potential_table(q, kelvin, term)
    quantity = "length" if kind == _PAIR else function.quantity
    return FunctionTable(function.name, kind, file, q, u, error, kelvin, quantity)


def wells_of(tables: Sequence[FunctionTable], fit: Refinement) -> list[dict[str, Any]]:
    """Minima of all pair potentials, the deepest first; each says of which, if there are several.

    At the temperature of the first state point.
    """
    first = [t for t in tables if t.is_pair and t.temperature == fit.states[0].temperature]
    first = list({table.term: table for table in reversed(first)}.values())[::-1]
    found = [well for table in first for well in _all_wells(table, fit, len(first) > 1)]
    return sorted(found, key=lambda well: float(well["u_kJ_mol"]))


def _all_wells(table: FunctionTable, fit: Refinement, several: bool) -> list[dict[str, Any]]:
    """Minima of all pairs of types, which each says where there are several."""
    found: list[dict[str, Any]] = []
    names = pairs_of_types(len(table.u), "{} {}")
    for name, *row in zip(names, table.u, table.error, strict=True):
        own: dict[str, Any] = {"types": name} if name else {}
        own |= {"term": table.term} if several else {}
        thermal = MOLAR_GAS_CONSTANT * table.temperature
        wells = _wells(table.q, row[0], row[1], fit.first_contact(), thermal)
        found += [well | own for well in wells]
    return sorted(found, key=lambda well: float(well["u_kJ_mol"]))


def _wells(
    r: Array, u: Array, error: Array, first: float, thermal: float
) -> list[dict[str, float]]:
    """Minima of u(r) where pairs are found, the deepest first; below 0.05 kT they are ripples."""
    r, u, error = r[r >= first], u[r >= first], error[r >= first]
    places, _ = find_peaks(-u, prominence=0.05 * thermal)
    wells = [
        {"r_nm": float(r[i]), "u_kJ_mol": float(u[i]), "standard_error": float(error[i])}
        for i in places
    ]
    return sorted(wells, key=lambda well: well["u_kJ_mol"])
