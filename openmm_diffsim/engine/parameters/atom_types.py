"""Types of atoms, as a ForceField of OpenMM assigns them."""

from __future__ import annotations

import copy
from typing import Any

from openmm import app


def atom_types(
    forcefield: app.ForceField, topology: app.Topology, classes: bool = False, **options: Any
) -> list[str]:
    """Type of each atom of a topology, or its class, by the XML files of a ForceField.

        types = diffsim.atom_types(forcefield, topology)
        oxygens = [i for i, kind in enumerate(types) if kind == "tip3p-O"]
        parameters.torsions([("*", "protein-CX", "protein-C", "*")], types=types)

    Parameters
    ----------
    forcefield, topology
        What the System is made of. Particles that ``Modeller.addExtraParticles`` adds have to be in
        the topology.
    classes : bool
        The class that the type belongs to. Files name some forces by one, some by the other.
    options
        Of ``createSystem`` that say which template a residue has: ``residueTemplates``,
        ``ignoreExternalBonds``.

    Raises
    ------
    ValueError
        From OpenMM, where no template fits a residue.
    """
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
