"""How a state point is run: [dynamics] of a configuration, or what a [[state]] says of it."""

from __future__ import annotations

from dataclasses import dataclass

from .section import Section

DYNAMICS_KEYS = ("temperature", "timestep", "friction", "pressure", "platform", "threads")


@dataclass(frozen=True)
class DynamicsSection:
    """See ``fluid.Dynamics``."""

    temperature: float  # K
    timestep: float  # ps
    friction: float  # 1/ps
    pressure: float | None  # bar, of a barostat that is added
    platform: str
    threads: int | None  # of each worker


def read_dynamics(section: Section) -> DynamicsSection:
    """ConfigurationError where a value cannot be."""
    made = DynamicsSection(
        temperature=section.number("temperature"),
        timestep=section.number("timestep"),
        friction=section.number("friction", 1.0),
        pressure=section.number("pressure", None),
        platform=section.text("platform", "CPU"),
        threads=section.integer("threads", None),
    )
    section.finish()
    return made
