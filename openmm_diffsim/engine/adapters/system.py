"""Systems with some of their forces, and as they are kept in a file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openmm
from numpy.typing import ArrayLike, NDArray

from ...errors import AttachError
from ...limits import checked_indices, shown
from ...potentials import all_adapters
from ..native import SplinePairForce

IntArray = NDArray[np.int64]


def other_forces(
    system: openmm.System,
    names: Collection[str] = (),
    groups: int = -1,
    bookkeeping: bool = False,
) -> openmm.System:
    """A copy of a System without the forces of these names, and those that have no energy.

    ``bookkeeping``: keep thermostats, barostats and the like, too.

    ``groups`` is a bit mask of the force groups to keep.
    """

    def is_kept(force: openmm.Force) -> bool:
        in_groups = bool(groups & (1 << force.getForceGroup()))
        return force.getName() not in names and in_groups and (bookkeeping or has_energy(force))

    return copy_with(system, is_kept)


def copy_with(system: openmm.System, is_kept: Callable[[openmm.Force], bool]) -> openmm.System:
    """A copy of a System with some of its forces. Of the others no copy is made, even in between:
    openmmtorch 1.5 crashes where a TorchForce is to be read."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(system))
    node = root.find("Forces")
    assert node is not None
    for element, force in zip(list(node), system.getForces(), strict=True):
        if not is_kept(force):
            node.remove(element)
    return openmm.XmlSerializer.deserialize(ElementTree.tostring(root, encoding="unicode"))


def without_forces(system: openmm.System) -> openmm.System:
    """A copy of a System that has none."""
    return copy_with(system, lambda force: False)


def has_native_force(system: openmm.System) -> bool:
    """Does the System need the plugin?"""
    return any(SplinePairForce.isinstance(force) for force in system.getForces())


def has_energy(force: openmm.Force) -> bool:
    """False for thermostats, barostats and the like, and for bonds that only make molecules."""
    bookkeeping = (
        openmm.CMMotionRemover,
        openmm.AndersenThermostat,
        openmm.MonteCarloBarostat,
        openmm.MonteCarloAnisotropicBarostat,
        openmm.MonteCarloMembraneBarostat,
        openmm.MonteCarloFlexibleBarostat,
    )
    return not isinstance(force, bookkeeping) and not _is_slack(force)


def _is_slack(force: openmm.Force) -> bool:
    """Are all of its bonds without stiffness?"""
    if not isinstance(force, openmm.HarmonicBondForce):
        return False
    stiffness = (force.getBondParameters(i)[3] for i in range(force.getNumBonds()))
    return not any(k._value for k in stiffness)


def portable_system(system: openmm.System) -> openmm.System:
    """A copy of a System to be kept in a file, with the same energy to rounding.

        text = openmm.XmlSerializer.serialize(diffsim.portable_system(system))

    In place of each SplinePairForce stands a CustomNonbondedForce of the same name and force
    group: anyone who has OpenMM alone can run it. A network is there with its present parameters;
    who loads the file needs this package (``import openmm_diffsim``) and the module of the network.
    That is code: ``read_xml`` reads it only where it is ``trusted``.

    Raises
    ------
    AttachError
        If there is a TorchForce: openmmtorch 1.5 writes it and crashes where it is read; or a
        network whose class is in the running script, where no other program finds it.
    """
    for adapter, own in _attached_in(system):
        adapter.check_portable(own)
    return _with_portable(system, lambda adapter, own: True)


def _attached_in(system: openmm.System) -> Iterator[tuple[Any, Any]]:
    """Each force that an adapter knows, after the adapter's class."""
    for force in system.getForces():
        for adapter in all_adapters():
            own = adapter.own(force)
            if own is not None:
                yield adapter, own


def readable_elsewhere(system: openmm.System) -> openmm.System:
    """A copy of a System whose XML another process that has this package can run."""
    return _with_portable(system, lambda adapter, own: adapter.content(own) is not None)


def _with_portable(system: openmm.System, wanted: Callable[[Any, Any], bool]) -> openmm.System:
    copy = without_forces(system)
    for force in system.getForces():
        copy.addForce(_portable(force, wanted))
    return copy


def _portable(force: openmm.Force, wanted: Callable[[Any, Any], bool]) -> openmm.Force:
    for adapter in all_adapters():
        own = adapter.own(force)
        if own is not None and wanted(adapter, own):
            return adapter.portable(own)
    return openmm.XmlSerializer.clone(force)


def type_of_particle(
    n_types: int, n: int, atoms: ArrayLike | None, types: ArrayLike | None
) -> IntArray:
    """Type of each of ``n`` particles, -1 for those that are not among ``atoms``.

    Raises
    ------
    AttachError
        If an index or a type is out of range.
    """
    chosen = np.arange(n) if atoms is None else checked_indices("atoms", atoms, AttachError, n)
    kinds = np.zeros(len(chosen)) if types is None else np.asarray(types).ravel()
    if kinds.dtype.kind not in "iuf":
        raise AttachError(f"types: expected whole numbers, got {shown(types)}", got=types)
    if kinds.shape != chosen.shape:
        raise AttachError(
            f"types: expected one for each of {len(chosen)} atoms, got {len(kinds)}",
            expected=len(chosen),
            got=len(kinds),
        )
    last = n_types - 1
    if np.any(kinds != np.floor(kinds)) or kinds.min() < 0 or kinds.max() > last:
        raise AttachError(f"types: expected whole numbers 0 .. {last}, got {np.unique(kinds)}")
    type_of = np.full(n, -1, dtype=np.int64)
    type_of[chosen] = kinds.astype(np.int64)
    return type_of


def is_periodic(system: openmm.System, periodic: bool | None) -> bool:
    """What was asked for or, by default, whether all nonbonded forces are; True without any."""
    if periodic is not None:
        return periodic
    return all(
        force.usesPeriodicBoundaryConditions()
        for force in system.getForces()
        if isinstance(force, openmm.NonbondedForce | openmm.CustomNonbondedForce)
        or SplinePairForce.isinstance(force)
    )
