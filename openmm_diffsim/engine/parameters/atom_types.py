"""Types of atoms, as a ForceField of OpenMM or a file of another program names them."""

from __future__ import annotations

import copy
from functools import singledispatch
from typing import Any

from openmm import app

from ...errors import PotentialError


def atom_types(
    source: Any, topology: app.Topology | None = None, classes: bool = False, **options: Any
) -> list[str]:
    """Type of each particle of a System, or its class, as its files name them.

        types = diffsim.atom_types(forcefield, topology)
        types = diffsim.atom_types(app.GromacsTopFile("topol.top"))
        parameters.torsions([("*", "protein-CX", "protein-C", "*")], types=types)
        parameters.lennard_jones(["tip3p-O"], types=types)

    Parameters
    ----------
    source : ForceField, AmberPrmtopFile, GromacsTopFile or CharmmPsfFile
        What the System is made of.
    topology : openmm.app.Topology
        With a ForceField, and only then. Particles that ``Modeller.addExtraParticles`` adds have to
        be in it.
    classes : bool
        The class that the type belongs to. Files name some forces by one, some by the other: XML
        by its classes, GROMACS bonded forces by the bonded type. Amber and CHARMM have types only.
    options
        Of ``ForceField.createSystem`` that say which template a residue has:
        ``residueTemplates``, ``ignoreExternalBonds``.

    Raises
    ------
    PotentialError
        If the source is something else, or a topology or options are given with a file.
    ValueError
        From OpenMM, where no template fits a residue.
    """
    if isinstance(source, app.ForceField):
        return _by_forcefield(source, topology, classes, **options)
    if topology is not None or options:
        raise PotentialError(
            f"atom_types: {type(source).__name__} has its own topology, expected nothing besides, "
            f"got {topology if topology is not None else options}"
        )
    return _by_file(source, classes)


def _by_forcefield(
    forcefield: app.ForceField, topology: app.Topology | None, classes: bool, **options: Any
) -> list[str]:
    if topology is None:
        raise PotentialError("atom_types: a ForceField needs the topology too, got none")
    catcher = _Catcher()
    only_types = copy.copy(forcefield)
    only_types._forces, only_types._scripts = [catcher], []
    only_types.createSystem(topology, **options)
    types = [str(catcher.types[atom]) for atom in topology.atoms()]
    return [forcefield._atomTypes[kind].atomClass for kind in types] if classes else types


class _Catcher:
    """A generator of no force, that is handed what OpenMM has found of the atoms."""

    def createForce(self, system: Any, data: Any, *arguments: Any) -> None:
        self.types = data.atomType


@singledispatch
def _by_file(source: Any, classes: bool) -> list[str]:
    raise PotentialError(
        "atom_types: expected a ForceField and a topology, or an AmberPrmtopFile, GromacsTopFile "
        f"or CharmmPsfFile of OpenMM, got {source!r}",
        got=source,
    )


@_by_file.register
def _(source: app.AmberPrmtopFile, classes: bool) -> list[str]:
    return [str(kind) for kind in source._prmtop.getAtomTypes()]


@_by_file.register
def _(source: app.GromacsTopFile, classes: bool) -> list[str]:
    types = [
        atom[1]
        for name, count in source._molecules
        for _ in range(count)
        for atom in source._moleculeTypes[name].atoms
    ]
    return [source._atomTypes[kind][1] or kind for kind in types] if classes else types


@_by_file.register
def _(source: app.CharmmPsfFile, classes: bool) -> list[str]:
    # A number until the parameters are loaded, where the PSF has numbers in place of names.
    return [str(atom.attype if atom.type is None else atom.type.name) for atom in source.atom_list]
