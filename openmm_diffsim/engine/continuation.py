"""Where a Context is, as text, and what other runs may begin from there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import openmm

_NOWHERE = ""  # a platform whose checkpoints nobody reads, so that the State as XML is taken


def begin_anew(context: openmm.Context, text: str) -> None:
    """Make a Context anew, with random numbers that a text decides; its state is then lost."""
    for part in seeded(context.getIntegrator(), context.getSystem()):
        part.setRandomNumberSeed(_seed(text))
    context.reinitialize()


def seeded(integrator: openmm.Integrator, system: openmm.System) -> Iterator[Any]:
    """All that has a seed of random numbers: the integrator, those in it, and forces."""
    several = getattr(integrator, "getNumIntegrators", lambda: 0)()
    inner = [integrator.getIntegrator(i) for i in range(several)]
    for part in [integrator, *inner, *system.getForces()]:
        if hasattr(part, "setRandomNumberSeed"):
            yield part


def with_other_numbers(text: Mapping[str, str], what: str = "again") -> dict[str, str]:
    """The same positions and velocities, to go on from with other random numbers.

    The same text and ``what`` give the same ones.
    """
    seed = hashlib.sha256(f"{what} {text['seed']}".encode()).hexdigest()
    return {**text, "platform": _NOWHERE, "checkpoint": "", "seed": seed}


def another_start(
    context: openmm.Context, text: Mapping[str, str], temperature: float, number: int
) -> dict[str, str]:
    """Where a further run begins: the positions of ``text``, which the Context is at.

    Velocities of that temperature, K, and random numbers are its own; ``number`` decides them.
    """
    other = with_other_numbers(text, f"replica {number}")
    context.setVelocitiesToTemperature(temperature, _seed(other["seed"]))
    return {**other, "state": place_of(context)}


def place_of(context: openmm.Context) -> str:
    """Positions, velocities and box as XML.

    Without parameters of the Context: XML has no place for all that these may be called.
    """
    return str(openmm.XmlSerializer.serialize(context.getState(positions=True, velocities=True)))


def where(context: openmm.Context) -> str:
    """A checksum of positions, velocities and box: has anything moved?"""
    state = context.getState(positions=True, velocities=True)
    parts = state.getPositions(True), state.getVelocities(True), state.getPeriodicBoxVectors(True)
    return hashlib.sha256(b"".join(np.asarray(p._value).tobytes() for p in parts)).hexdigest()


def _seed(text: str) -> int:
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "little") % (2**31 - 1) + 1  # 0 would be random
