"""What is measured of the structure of pairs of types, and what else acts between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..curve import Curve
from ..engine.adapters import charges_between, nonbonded_between
from ..errors import ConfigurationError
from ..observables import Observable
from ..potentials import n_pairs_of_types
from .prepared import Known, Prepared, Tell

_PURE = 1 - 1e-9  # share of the pairs of a g(r) that is of one pair of types


@dataclass(frozen=True)
class Structure:
    """A measured g(r), and the observable that knows how to read it."""

    observable: Observable
    curve: Curve
    temperature: float | None = None  # K, that it was measured at

    @property
    def rise(self) -> float:
        """Where pairs begin to be found, nm."""
        found = self.observable.contact(self.curve, 0.05)
        if found is None:
            raise ConfigurationError(
                f"{self.curve.path}: g(r) never exceeds 0.5, so it gives no first guess of a "
                "potential; give potential.r_min and parameters",
                key="potential.initial",
            )
        return found

    @property
    def first_pair(self) -> float:
        """Where the first pairs are found, nm: a spline begins before."""
        found = self.observable.first_pairs(self.curve)
        return self.rise if found is None else found

    @property
    def peak(self) -> float:
        """Distance of nearest neighbours, nm."""
        found = self.observable.nearest_distance(self.curve)
        return self.rise if found is None else found


def structures(known: Known, n_types: int) -> tuple[list[Structure | None], list[int]]:
    """Of each pair of types its own g(r) or, where it has none, the first; and those without."""
    found = [
        (
            each.observable.counted_pairs(each.place.type_of),
            Structure(each.observable, each.curve, each.place.temperature),
        )
        for each in known.fitted
        if each.observable.is_structure and each.curve is not None
    ]
    n_pairs = n_pairs_of_types(n_types)
    measured: list[Structure | None] = [found[0][1] if found else None] * n_pairs
    borrowed = set(range(n_pairs))
    for counted, structure in reversed(found):  # the first of several counts
        if counted is not None and counted.shares.max() > _PURE:
            pair = int(np.argmax(counted.shares))
            measured[pair] = structure
            borrowed.discard(pair)
    return measured, sorted(borrowed)


def tell_borrowed(
    measured: Sequence[Structure | None],
    borrowed: Sequence[int],
    n_types: int,
    tell: Tell,
) -> None:
    """Say which pairs of types have no g(r) of their own to start from."""
    if n_types == 1 or not borrowed:
        return
    structure = measured[borrowed[0]]
    assert structure is not None
    types = list(zip(*np.triu_indices(n_types), strict=True))
    names = ", ".join("{}-{}".format(*types[pair]) for pair in borrowed)
    tell(
        f"potential.initial: the pairs of types {names} have no g(r) of their own and start from "
        f"that of {structure.curve.path}; types are numbered from 0, as in system.types"
    )


def between_others(
    place: Prepared, n_types: int, tell: Tell
) -> dict[int, tuple[float, float] | None]:
    """Pairs of types that other forces act between: a correction to these begins at zero.

    Where only charges act, these, e: then it begins beside what others do not screen of them.
    """
    system, type_of = place.system, place.type_of
    members = [np.flatnonzero(type_of == kind) for kind in range(n_types)]
    pairs = [(a, b) for a in range(n_types) for b in range(a, n_types)]
    others = [nonbonded_between(system, members[a], members[b]) for a, b in pairs]
    charges = [charges_between(system, members[a], members[b]) for a, b in pairs]
    found = [k for k, names in enumerate(others) if names and charges[k] is None]
    if found:
        names = " and ".join(dict.fromkeys(name for k in found for name in others[k]))
        which = ", ".join("{}-{}".format(*pairs[k]) for k in found)
        of = "these particles" if len(found) == len(pairs) else f"particles of types {which}"
        tell(
            f"potential.initial: {names} of the System acts between {of} already, so the potential "
            "begins at zero there, as a correction, and not at the potential of mean force"
        )
    return {k: charges[k] for k, names in enumerate(others) if names}
