"""Which System a state point is of: everything but the parameters of the learned forces."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from ..io.checksum import brief
from ..potentials import all_adapters
from .adapters import Adapter
from .adapters.system import has_energy, without_forces
from .context import masses_of

_NOT_MEANT = ("randomSeed", "name", "type", "forceGroup")  # of a force, or told otherwise
_MOST_RUNS = 20
_PARAMETERS = "GlobalParameters"
_NO_PAIRS = np.zeros((0, 2), dtype=np.int64)


def system_identity(
    context: openmm.Context, learned: Adapter, box: NDArray[np.float64] | None
) -> dict[str, Any]:
    """Masses, constraints, all forces but the learned ones, and what these act on, as plain data.

    ``box`` [3, 3], nm, is that of constant volume, or None. Global parameters of a force have the
    values that they have in the Context.
    """
    system = context.getSystem()
    n = system.getNumParticles()
    constraints = [system.getConstraintParameters(i) for i in range(system.getNumConstraints())]
    rigid = [[i, j, d.value_in_unit(unit.nanometer)] for i, j, d in constraints]
    volume = (
        {}
        if box is None
        else {
            "density in 1/nm^3": float(f"{n / np.prod(np.diag(box)):.12g}"),
            "box in nm": box.tolist(),
        }
    )
    return {
        "number of particles": n,
        **volume,
        "masses in amu": _runs(masses_of(system).tolist()),
        "virtual sites": _virtual_sites(system),
        "constraints": brief(rigid),
        "forces": _forces(context, learned),
        "learned forces": {
            part.potential.name: {
                "periodic": part.is_periodic,
                "types of particles": brief(part.types()),
                "exclusions": brief(np.concatenate([_NO_PAIRS, *part.exclusions()])),
            }
            for part in learned.parts
        },
    }


def rest_identity(context: openmm.Context, learned: Adapter) -> tuple[tuple[str, str], ...]:
    """Name and checksum of each force but the learned ones that has an energy, as it acts now.

    Without thermostats and barostats: frames of several temperatures are pooled.
    """
    energetic = {f.getName() for f in context.getSystem().getForces() if has_energy(f)}
    found = _forces(context, learned)
    return tuple(
        (name, _digest([json.dumps(content, sort_keys=True, default=str).encode()])[:16])
        for name, content in found.items()
        if name in energetic or name.rpartition(" ")[0] in energetic
    )


def _runs(values: Sequence[float]) -> Any:
    """Values one after the other, each as often as it comes: "120 x 39.948"; many by checksum."""
    runs = [f"{len(list(same))} x {value!r}" for value, same in groupby(values)]
    return runs if len(runs) <= _MOST_RUNS else {"sha256": _digest(r.encode() for r in runs)}


def _virtual_sites(system: openmm.System) -> dict[str, Any]:
    """How many, and the checksum of what they are and depend on."""
    n = sum(system.isVirtualSite(i) for i in range(system.getNumParticles()))
    if n == 0:
        return {}
    root = ElementTree.fromstring(openmm.XmlSerializer.serialize(without_forces(system)))
    particles = root.find("Particles")
    assert particles is not None
    sites = [b"%d" % i + ElementTree.tostring(site) for i, p in enumerate(particles) for site in p]
    return {"number": n, "sha256": _digest(sites)}


def _forces(context: openmm.Context, learned: Adapter) -> dict[str, Any]:
    """Each by its name, and its number where there are several of a name."""
    found: dict[str, Any] = {}
    for force in context.getSystem().getForces():
        if force.getName() in learned.names:
            continue
        if learned.learns_of(force):
            copy = openmm.XmlSerializer.clone(force)
            learned.hide(force, copy)
            force = copy
        name, count = force.getName(), 2
        while name in found:
            name, count = f"{force.getName()} {count}", count + 1
        found[name] = _force(force, context, learned.global_parameters)
    return found


def _force(force: openmm.Force, context: openmm.Context, learned: frozenset[str]) -> dict[str, Any]:
    """Its class, its settings, and checksums of what it holds: particles, exceptions ...

    Of global parameters that are learned there is only the name.
    """
    kind = type(force).__name__
    content = _content(force)
    if content is not None:
        return {"class": kind, **content}
    try:
        root = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))
    except openmm.OpenMMException:  # Python code that cannot be kept: nothing more is known
        return {"class": kind}
    settings = {key: text for key, text in root.attrib.items() if key not in _NOT_MEANT}
    parts = {part.tag: {"sha256": _digest([ElementTree.tostring(part)])} for part in root}
    names = [parameter.attrib["name"] for parameter in root.iterfind(f"{_PARAMETERS}/*")]
    parameters = {n: "learned" if n in learned else context.getParameter(n) for n in names}
    return {"class": root.attrib.get("type", kind), **settings, **parts, _PARAMETERS: parameters}


def _content(force: openmm.Force) -> dict[str, Any] | None:
    """What the adapter of its kind says, of a force that was attached and is not learned."""
    for adapter in all_adapters():
        own = adapter.own(force)
        if own is not None:
            content: dict[str, Any] | None = adapter.content(own)
            return content
    return None


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()
