"""Which particles are of a type: as a user says it, and the same ones in another System."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from ...errors import AttachError, PotentialError
from ...limits import checked_indices, shown
from ..context import masses_of

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

_DIGITS = 9  # that numbers of one type share


def chosen_types(
    atoms: Any, values: Array, types: Sequence[str] | None = None
) -> dict[str, IntArray]:
    """Particles of each type, by its name.

    ``atoms``: a mapping of names to particles; or particles, of which those of equal ``values``
    [particles, columns] are one type, numbered in their order ("" if there is only one). With the
    ``types`` of all particles, those of one of these are; and their names may stand for them.

    Raises
    ------
    PotentialError
        If an index is no particle or comes twice, or there are none; if there is no such type.
    """
    n = len(values)
    if types is not None:
        atoms = _by_types(atoms, _checked_kinds(types, n))
    if isinstance(atoms, Mapping):
        found = {str(name): _indices(chosen, n, name) for name, chosen in atoms.items()}
        _check_apart(found)
        return found
    chosen = _indices(atoms, n, "atoms")
    keys = rounded(values[chosen])
    _, first, kind = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))[kind.ravel()]
    names = [""] if len(first) == 1 else [str(k) for k in range(len(first))]
    return {name: chosen[order == k] for k, name in enumerate(names)}


def _checked_kinds(types: Sequence[str], n: int) -> NDArray[np.str_]:
    if len(types) != n:
        raise PotentialError(
            f"types: expected one for each of {n} particles, got {len(types)}; "
            "diffsim.atom_types(...) gives them",
            got=len(types),
            expected=n,
        )
    return np.array([str(kind) for kind in types])


def _by_types(atoms: Any, kinds: NDArray[np.str_]) -> dict[str, Any]:
    """A mapping of names to particles, where ``atoms`` may have names of types in their place."""
    if isinstance(atoms, Mapping):
        return {name: _particles(chosen, kinds) for name, chosen in atoms.items()}
    chosen = list(np.ravel(atoms))
    if chosen and all(isinstance(one, str) for one in chosen):
        return {str(kind): _particles([kind], kinds) for kind in chosen}
    own = kinds[_indices(chosen, len(kinds), "atoms")]
    return {kind: np.array(chosen)[own == kind] for kind in dict.fromkeys(own.tolist())}


def _particles(chosen: Any, kinds: NDArray[np.str_]) -> Any:
    names = list(np.ravel(chosen))
    if not (names and all(isinstance(one, str) for one in names)):
        return chosen
    missing = [name for name in names if name not in kinds]
    if missing:
        raise PotentialError(
            f"no particle is of type {str(missing[0])!r}; there are {', '.join(np.unique(kinds))}",
            got=missing[0],
        )
    return np.flatnonzero(np.isin(kinds, names))


def one_value(types: Mapping[str, IntArray], values: Array, what: str) -> Array:
    """The value that all particles of each type have, [types].

    Raises
    ------
    PotentialError
        If those of a type have several.
    """
    for name, chosen in types.items():
        found = np.unique(rounded(values[chosen]))
        if len(found) > 1:
            raise PotentialError(
                f"{what} of type {name!r}: expected one value of all its atoms, got "
                f"{', '.join(f'{v:g}' for v in found[:4])}; give these atoms types of their own",
                got=found.tolist(),
            )
    return np.array([values[chosen[0]] for chosen in types.values()])


def check_options(learn: Any, bounds: Any, learnable: tuple[str, ...]) -> None:
    """PotentialError where they name something else than these parameters, or learn nothing."""
    names = list(learn) if isinstance(learn, Collection) and not isinstance(learn, str) else []
    if not names or any(name not in learnable for name in names):
        raise PotentialError(f"learn: expected some of {learnable}, got {shown(learn)}", got=learn)
    is_mapping = bounds is None or isinstance(bounds, Mapping)
    if not is_mapping or any(name not in learnable for name in bounds or ()):
        raise PotentialError(
            f"bounds: expected two numbers each for some of {learnable}, as "
            f"{{{learnable[0]!r}: (0.1, 0.5)}}, got {shown(bounds)}",
            got=bounds,
        )


class Kinds:
    """The particles of each type as they were in the first System, to find them in another one.

    A particle is known by its mass and by its parameters at the start.

    Parameters
    ----------
    system : openmm.System
    types : mapping of names to particles
    values : array [particles, columns]
    """

    def __init__(self, system: openmm.System, types: Mapping[str, IntArray], values: Array) -> None:
        keys = _keys(system, values)
        self._rows = {
            name: set(map(tuple, keys[chosen].tolist())) for name, chosen in types.items()
        }
        left = np.setdiff1d(np.arange(len(keys)), np.concatenate(list(types.values())))
        self._others = set(map(tuple, keys[left].tolist()))

    def find(self, system: openmm.System, values: Array) -> dict[str, IntArray]:
        """Particles of each type in another System, whose values are those of the start.

        Raises
        ------
        AttachError
            If particles of a type are there that cannot be told from others, or none at all is.
        """
        keys = list(map(tuple, _keys(system, values).tolist()))
        self._check(set(keys))
        found = {
            name: np.array([i for i, key in enumerate(keys) if key in rows], dtype=np.int64)
            for name, rows in self._rows.items()
        }
        if not any(len(chosen) for chosen in found.values()):
            raise AttachError(
                f"no particle of this System has the mass and the parameters that those of "
                f"{list(self._rows)} had at the start: attach() before parameters are learned"
            )
        return found

    def _check(self, there: set[Any]) -> None:
        sets = [*self._rows.values(), self._others]
        shared = [key for key in there if sum(key in rows for rows in sets) > 1]
        if shared:
            raise AttachError(
                f"particles of mass and parameters {shared[0]} are of several types, or some of "
                "them of none, in the first System: which ones are meant here cannot be told",
                got=shared,
            )


def _keys(system: openmm.System, values: Array) -> Array:
    return rounded(np.column_stack([masses_of(system), values]))


def rounded(values: Array) -> Array:
    """To as many digits as numbers of one type share."""
    size = 10.0 ** np.floor(np.log10(np.where(values == 0, 1.0, np.abs(values))))
    return np.round(values / size, _DIGITS) * size + 0.0


def _indices(atoms: Any, n: int, name: Any) -> IntArray:
    if hasattr(atoms, "__len__") and len(atoms) == 0:
        raise PotentialError(
            f"{name}: got no particles; is what you look for zero, or in another Force (a "
            "CustomNonbondedForce has its own parameters)?"
        )
    if np.asarray(atoms).dtype.kind in "UO" and isinstance(np.ravel(atoms)[0], str):
        raise PotentialError(
            f"{name}: got {shown(atoms)}; names of types are taken with types=, of each particle, "
            "which diffsim.atom_types(...) gives",
            got=atoms,
        )
    return checked_indices(str(name), atoms, PotentialError, n)


def _check_apart(types: Mapping[str, IntArray]) -> None:
    if not types:
        raise PotentialError("expected names of types and their particles, got none")
    every = np.concatenate(list(types.values()))
    found, times = np.unique(every, return_counts=True)
    if np.any(times > 1):
        twice = int(found[times > 1][0])
        owners = [name for name, chosen in types.items() if twice in chosen]
        raise PotentialError(f"particle {twice} is of the types {owners}: expected one", got=twice)
