"""One ``attach`` for every potential, and the way back from a System to its Force."""

from __future__ import annotations

from typing import Any

import openmm
from numpy.typing import ArrayLike

from ...errors import AttachError
from ...potentials import NetworkPotential, PairPotential, Potential
from ..native import SplinePairForce
from . import network, pair


def attach(
    potential: Potential,
    system: openmm.System,
    atoms: ArrayLike | None = None,
    types: ArrayLike | None = None,
    exclusions: Any = None,
    periodic: bool | None = None,
    temperature: Any = None,
    backend: str | None = None,
    precision: str | None = None,
) -> openmm.Force:
    """Add ``potential`` to ``system``; see ``Potential.attach``."""
    if find_force(potential, system) is not None:
        raise AttachError(
            f"the System already has a force named {potential.name!r}; give this potential "
            "another name= to attach both"
        )
    options = (atoms, types, exclusions, periodic, temperature, backend, precision)
    if isinstance(potential, PairPotential):
        force = pair.make_force(potential, system, *options)
    else:
        force = network.make_force(_network(potential), system, *options)
    system.addForce(force)
    return force


Potential.force_builder = staticmethod(attach)


def find_force(potential: Potential, system: openmm.System) -> openmm.Force | None:
    """The Force that ``attach`` added for this potential (by its name), or None."""
    is_pair = isinstance(potential, PairPotential)
    is_one, whole = (
        (pair.is_pair_force, pair.whole) if is_pair else (network.is_network_force, network.whole)
    )
    for force in system.getForces():
        if force.getName() == potential.name and is_one(force):
            return whole(force)
    return None


def attached_force(potential: Potential, system: openmm.System) -> openmm.Force:
    """The Force that ``attach`` added for this potential.

    Raises
    ------
    AttachError
        If the System has none.
    """
    force = find_force(potential, system)
    if force is None:
        raise AttachError(
            f"the System has no force named {potential.name!r}: call potential.attach(system) "
            "before the Simulation is made"
        )
    return force


def update_force(
    potential: Potential,
    force: openmm.Force,
    context: openmm.Context | None = None,
    temperature: Any = None,
) -> openmm.Force:
    """Copy the potential's present parameters to its Force and, if given, to a live Context.

    Nothing is rebuilt, but for a TorchForce, whose network is frozen: the System gets a new one as
    its last Force, the Context is reinitialized with its state preserved, and the old Force must
    not be used any more.

    Returns
    -------
    openmm.Force
        The Force, or that in its place.

    Raises
    ------
    AttachError
        If parameters are not finite, the Force was made for other knots or another network, or the
        Context was made before the Force was added to the System.
    """
    if isinstance(potential, PairPotential):
        pair.update(potential, force, context, temperature)
        return force
    return network.update(_network(potential), force, context)


def portable_system(system: openmm.System) -> openmm.System:
    """A copy of a System to be kept in a file, with the same energy to rounding.

        text = openmm.XmlSerializer.serialize(diffsim.portable_system(system))

    In place of each SplinePairForce stands a CustomNonbondedForce of the same name and force
    group: anyone who has OpenMM alone can run it. A network is there with its present parameters;
    who loads the file needs this package (``import openmm_diffsim``).

    Raises
    ------
    AttachError
        If there is a TorchForce: openmmtorch 1.5 writes it and crashes where it is read.
    """
    copy = pair.copy_with(system, lambda force: False)
    for force in system.getForces():
        if SplinePairForce.isinstance(force):
            copy.addForce(pair.as_table(SplinePairForce.cast(force)))
        elif network.is_network_force(force):
            copy.addForce(network.portable(force))
        else:
            copy.addForce(openmm.XmlSerializer.clone(force))
    return copy


def _network(potential: Potential) -> NetworkPotential:
    if not isinstance(potential, NetworkPotential):
        raise AttachError(
            f"expected a PairPotential or a NetworkPotential, got {type(potential).__name__}: wrap "
            "a torch module in NetworkPotential(module)"
        )
    return potential
