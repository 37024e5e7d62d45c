"""What a term is: some parameters of a force that is in the System already."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import AttachError, PotentialError
from ...io.checksum import brief, checksum, text_checksum
from ...observables import Charges
from ...potentials.values import Values
from ...statistics.scaling import SCALING, scaled
from ..context import masses_of

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

Find = Callable[[Array, Array | None], Array]
"""Gives S, [coefficients], of positions [particles, 3] and a box [3, 3] or None, nm."""


class FrameFeatures:
    """Finds the features of frames; to be subclassed where virials are known without differences.

    Parameters
    ----------
    find : callable
        Gives S of a frame.
    """

    def __init__(self, find: Find) -> None:
        self._find = find

    def energies(self, positions: Array, box: Array | None) -> Array:
        """S, [coefficients]."""
        return self._find(positions, box)

    def both(self, positions: Array, box: Array, centres: Array) -> tuple[Array, Array]:
        """S, and -dS / d ln lambda of a box that is scaled while molecules move whole.

        ``centres`` [particles, 3] are those of the molecules of the particles, nm.
        """
        larger, smaller = (
            self.energies(*scaled(positions, centres, box, 1 + sign * SCALING)) for sign in (1, -1)
        )
        return self.energies(positions, box), -(larger - smaller) / (2 * SCALING)


class Term(nn.Module):
    """Some parameters of one Force, in torch and in OpenMM; to be subclassed.

    The part of the energy that depends on them is

        U_term(x; theta) = sum_k c_k(theta) S_k(x),

    exactly, where ``energy_is_linear``. Everything else of the Force is left to the rest of the
    energy: what fixed particles do to each other, and what does not follow the parameters.

    One term serves several Systems, a liquid and its vapour. What it has to know of each is its
    *layout*, plain data that can be pickled; ``layouts`` has them by the term's ``key`` of the
    System. The coefficients are the same in all of them.

    To add one, give the methods of both sides, and put the parameters into ``Values`` as
    attributes.

    Parameters
    ----------
    name : str
        Unique among the terms of a ``SystemParameters``; no dots.
    force : Found
        Which Force.
    """

    energy_is_linear = True
    global_names: ClassVar[Sequence[str]] = ()
    """Parameters of a Context, in the order of the values, where it learns such."""

    def __init__(self, name: str, force: ForcePlace) -> None:
        super().__init__()
        if not isinstance(name, str) or not name or "." in name:
            raise PotentialError(f"name: expected one without dots, got {name!r}", got=name)
        if hasattr(nn.ModuleDict, name):
            raise PotentialError(
                f"name: {name!r} is taken by torch, give the term another, name='...'", got=name
            )
        self.name = name
        self.place = force
        self.layouts: dict[str, Any] = {}
        self._seen: set[str] = set()
        """Checksums of what it ``held`` where a System was read, or written to."""

    # Torch ----------------------------------------------------------------------------------------

    def coefficients(self) -> Tensor:
        """c, flat, [coefficients], with a graph to the parameters."""
        raise NotImplementedError

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Names of the stretches of the coefficients, in order, and the shape of each."""
        raise NotImplementedError

    def free_charges(self, coefficients: Tensor) -> Tensor:
        """What it learns of charges, at its own coefficients; see ``Potential.free_charges``."""
        return coefficients[:0]

    def form(self) -> dict[str, Any]:
        """What it is but for its parameters, as plain data; what each layout says too."""
        return {
            "kind": type(self).__name__,
            "force": self.place.form(),
            "values": {name: values.form() for name, values in self.values()},
        }

    def values(self) -> Iterator[tuple[str, Values]]:
        """Its parameters, learned or not, by their names."""
        for name, module in self.named_children():
            if isinstance(module, Values):
                yield name, module

    def told(self) -> tuple[list[str], Tensor]:
        """Names of the physical numbers that are learned, "sigma[O]", and the numbers."""
        learned = [(name, v) for name, v in self.values() if v.is_learned]
        names = [f"{name}[{key}]" if key else name for name, v in learned for key in v.names]
        return names, torch.cat([v() for _, v in learned] or [torch.zeros(0).double()])

    def theta_of(self, numbers: Mapping[str, Any]) -> dict[str, Tensor]:
        """theta of each of its ``values``, by name, where some of those told have these numbers.

        Raises
        ------
        PotentialError
            If a number is not what it can be.
        """
        found = {}
        for name, values in self.values():
            keys = {f"{name}[{key}]" if key else name: key for key in values.names}
            given = {keys[told]: number for told, number in numbers.items() if told in keys}
            if given:
                found[name] = values.theta_at(given, name)
        return found

    # OpenMM ---------------------------------------------------------------------------------------

    @property
    def places(self) -> tuple[ForcePlace, ...]:
        """All Forces that the parameters are in."""
        return (self.place,)

    def is_apart_from(self, other: Term) -> bool:
        """Is the energy of both the sum of those that each of them knows?

        By default not, where the other is of this kind and of the same Force: a pair of particles
        has to do with both.
        """
        return type(other) is not type(self) or other.place != self.place

    def key(self, system: openmm.System) -> str:
        """What a System is known by: all but what is learned. Those of one key have one layout.

        Raises
        ------
        AttachError
            If it lacks a Force of the term.
        """
        forces = [self.frame_of(place.find(system)) for place in self.places]
        return f"{system_key(system)} {text_checksum(json.dumps(forces))}"

    def frame_of(self, force: Any) -> Any:
        """What of a Force does not depend on parameters, as plain data."""
        raise NotImplementedError

    def held(self, force: Any, layout: Any) -> Array:
        """Numbers in a Force that ``write`` changes, or takes to be what they were."""
        raise NotImplementedError

    def keep(self, system: openmm.System, layout: Any) -> None:
        """A System has this layout, with what it holds now."""
        self.layouts[self.key(system)] = layout
        self._seen |= {self._mark(place.find(system), layout) for place in self.places}

    def knows(self, force: Any, layout: Any) -> bool:
        """Does a Force hold what the parameters started from, or what was written to one?"""
        return self._mark(force, layout) in self._seen

    def overwrite(self, force: Any, layout: Any) -> bool:
        """``write``; False where something is lost by it that is not known from anywhere."""
        before, was_known = self._mark(force, layout), self.knows(force, layout)
        self.write(force, layout)
        after = self._mark(force, layout)
        self._seen.add(after)
        return was_known or before == after

    def _mark(self, force: Any, layout: Any) -> str:
        return checksum(self.held(force, layout))

    def layout_like(self, system: openmm.System) -> Any:
        """The layout in another System, which has the parameters of the first one at the start.

        Raises
        ------
        AttachError
            If it cannot be told what of the System is meant.
        """
        raise NotImplementedError

    def write(self, force: Any, layout: Any) -> None:
        """Give a Force the present parameters."""
        raise NotImplementedError

    def bring(self, force: Any, context: openmm.Context) -> None:
        """What was written to a Force of a Context's System reaches the Context."""
        force.updateParametersInContext(context)

    def check_context(self, force: Any, context: openmm.Context) -> None:
        """Warn where a Context has numbers of its own, which ``bring`` will replace."""

    def hide(self, force: Any, layout: Any) -> None:
        """Put constants in place of all that ``write`` writes: what is left identifies a fit."""
        raise NotImplementedError

    def leaves_rest(self, layout: Any) -> bool:
        """Can its part of the energy be taken out of a Force, by ``leave_rest``?"""
        return False

    def leave_rest(self, force: Any, layout: Any) -> None:
        """Leave of the energy of a Force what does not depend on the parameters: U - c . S."""
        raise NotImplementedError

    def particle_charges(self, charges: Charges, force: Any, layout: Any) -> Charges:
        """With what it learns of them in a Force; see ``Adapter.charges``."""
        return charges

    @property
    def global_parameters(self) -> frozenset[str]:
        """Names of those of a Context that are learned."""
        return frozenset()

    def features(self, context: openmm.Context, layout: Any) -> FrameFeatures:
        """What finds S of a frame, for a Context of a System with this layout."""
        raise NotImplementedError


class ForcePlace:
    """One Force among those of a System: by its class, and its number among those of this class.

    So it is found again where other Forces came or went.

    Parameters
    ----------
    kind : type
        Its class.
    index : int
        0 for the first of them.
    """

    def __init__(self, kind: type, index: int = 0) -> None:
        self.kind = kind
        self.index = index

    @classmethod
    def of(cls, system: openmm.System, kind: type, force: Any = None) -> ForcePlace:
        """The Force of this class that is meant by its name, itself, or as the only one.

        Raises
        ------
        AttachError
            If there is none, or several.
        """
        own = forces_of(system, kind)
        if not own:
            every = sorted({type(f).__name__ for f in system.getForces()})
            raise AttachError(
                f"force: expected a {kind.__name__} in the System, which has none, only {every}",
                got=every,
            )
        chosen = [k for k, f in enumerate(own) if _is_chosen(f, force, own)]
        if len(chosen) != 1:
            names = [f.getName() for f in system.getForces()]
            of_kind = [type(f) is kind for f in system.getForces()]
            there = {k: name for k, name in enumerate(names) if of_kind[k]}
            raise AttachError(
                f"force: expected one {kind.__name__} of the System"
                + ("" if force is None else f" that is {force!r}")
                + f", found {len(chosen)} among {there}; name it, force='...', or where "
                "names are alike force=system.getForce(...)",
                got=list(there.values()),
            )
        return cls(kind, chosen[0])

    def find(self, system: openmm.System) -> Any:
        """The Force.

        Raises
        ------
        AttachError
            If the System has none at this place.
        """
        own = forces_of(system, self.kind)
        if self.index >= len(own):
            raise AttachError(
                f"expected {self.index + 1} {self.kind.__name__}(s) in the System, found {len(own)}"
            )
        return own[self.index]

    def form(self) -> list[Any]:
        """As plain data."""
        return [self.kind.__name__, self.index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ForcePlace) and self.form() == other.form()

    def __hash__(self) -> int:
        return hash(tuple(self.form()))


def forces_of(system: openmm.System, kind: type) -> list[Any]:
    """Those of a class, in order."""
    return [force for force in system.getForces() if type(force) is kind]


def _is_chosen(force: openmm.Force, said: Any, own: list[Any]) -> bool:
    """Is this the one that is meant? If nothing is said an empty one is not, beside others."""
    if said is not None:
        return is_meant(force, said)
    return not _is_empty(force) or all(map(_is_empty, own))


def _is_empty(force: Any) -> bool:
    """Has it no bonds, angles or torsions, if it is of those that have them?"""
    counts = [getattr(force, f"getNum{entry}s", None) for entry in ("Bond", "Angle", "Torsion")]
    return any(count is not None and count() == 0 for count in counts)


def is_meant(force: openmm.Force, said: Any) -> bool:
    """Is this the Force that a user names, or gives?"""
    if isinstance(said, str):
        return bool(force.getName() == said)
    return bool(force.this == getattr(said, "this", None))


def check_apart(term: Term, others: Iterable[Term]) -> None:
    """Is the energy of a term and of others the sum of what each of them knows?

    Raises
    ------
    PotentialError
        If not.
    """
    for other in others:
        if not (term.is_apart_from(other) and other.is_apart_from(term)):
            raise PotentialError(
                f"{term.name}: {other.name!r} learns parameters of the same Force, with which "
                "these have to do: name all of them in one call, or learn what is left in another",
                got=term.name,
            )


def system_key(system: openmm.System) -> str:
    """What a System is known by but for its forces: its particles and constraints."""
    constraints = [system.getConstraintParameters(k)[:2] for k in range(system.getNumConstraints())]
    return f"{brief(masses_of(system).tolist())} {brief(constraints)}"
