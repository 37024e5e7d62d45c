"""Which System a state point is of: everything but the parameters of the learned forces."""

from __future__ import annotations

import hashlib
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ..io.checksum import plain
from .adapters import Adapter

_NOT_MEANT = ("randomSeed", "name", "type", "forceGroup")  # of a force, or told otherwise


def system_identity(
    system: openmm.System, learned: Adapter, box: NDArray[np.float64] | None
) -> dict[str, Any]:
    """Masses, constraints, all forces but the learned ones, and what these act on, as plain data.

    ``box`` [3, 3], nm, is that of constant volume, or None.
    """
    n = system.getNumParticles()
    masses = [system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(n)]
    constraints = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    rigid = [[i, j, d.value_in_unit(unit.nanometer)] for i, j, d in constraints]
    volume = (
        {}
        if box is None
        else {
            "density in 1/nm^3": n / float(np.prod(np.diag(box))),
            "box in nm": box.tolist(),
        }
    )
    return {
        "particles": n,
        **volume,
        "masses in amu": [[mass, len(list(same))] for mass, same in groupby(masses)],
        "virtual sites": sum(system.isVirtualSite(i) for i in range(n)),
        "constraints": plain(rigid),
        "forces": _forces(system, learned),
        "learned forces": {
            "periodic": learned.is_periodic,
            "types": [plain(types) for types in (learned.types(), *learned.pair_types())],
            "exclusions": [plain(pairs) for pairs in learned.exclusions()],
        },
    }


def _forces(system: openmm.System, learned: Adapter) -> dict[str, Any]:
    """Each by its name, and its number where there are several of a name."""
    found: dict[str, Any] = {}
    for force in system.getForces():
        if force.getName() in learned.names:
            continue
        name, count = force.getName(), 2
        while name in found:
            name, count = f"{force.getName()} {count}", count + 1
        found[name] = _force(force)
    return found


def _force(force: openmm.Force) -> dict[str, Any]:
    """Its class, its attributes, and the checksum of all that it holds."""
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    own = {key: text for key, text in root.attrib.items() if key not in _NOT_MEANT}
    content = b"".join(ElementTree.tostring(child) for child in root)
    return {
        "class": root.attrib.get("type", type(force).__name__),
        **own,
        "content": hashlib.sha256(content).hexdigest(),
    }
