"""What an observable is told when a configuration asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Section(Protocol):
    """A ``[[target]]`` of a configuration, which hands out checked values.

    A key that is missing gives ``default``, or is an error where there is none. A key that nobody
    asks for is refused as unknown.
    """

    def number(self, key: str, default: Any = ..., above: float | None = None) -> Any:
        """A finite float."""

    def integer(self, key: str, default: Any = ..., at_least: int = 0) -> Any:
        """A whole number."""

    def flag(self, key: str, default: bool = False) -> Any:
        """True or false."""

    def text(self, key: str, default: Any = ...) -> Any:
        """A string that is not empty."""

    def choice(self, key: str, allowed: tuple[str, ...], default: Any = ...) -> Any:
        """One of several strings."""

    def tuples(self, key: str, size: int) -> Any:
        """Lists of so many whole numbers >= 0 each, or "bonded"; None where not given."""

    def pair(self, key: str, unit: str) -> tuple[float, float] | None:
        """[low, high], 0 <= low < high; the unit is for the message."""


@dataclass(frozen=True)
class Place:
    """What is known of where something is measured before anything is."""

    masses: Array
    """[particles], amu."""
    molecule_of: IntArray
    """[particles], index of the molecule of each particle."""
    volume: float | None
    """Of the box, nm^3; None without one."""
    temperature: float
    """K."""

    @property
    def n_particles(self) -> int:
        """Of the System."""
        return len(self.masses)

    def number_density(self, *selections: IntArray | None, molecules: bool = False) -> float | None:
        """Of the rarest of several selections (None: all), or of the molecules that hold it.

        1/nm^3; None without a box.
        """
        if self.volume is None:
            return None
        chosen = [self.molecule_of[slice(None) if s is None else s] for s in selections]
        return min(len(np.unique(c) if molecules else c) for c in chosen) / self.volume


@dataclass(frozen=True)
class Site(Place):
    """Where an observable that a configuration asks for is going to be measured."""

    topology: Any
    """The ``openmm.app.Topology``."""
    atoms: IntArray | None
    """What the potential acts on, and an observable by default; None: all particles."""
    reach: float
    """How far distances may be counted, nm: half the box, less what a barostat may take of it."""
    timestep: float
    """Of the Simulation's integrator, ps."""
    find: Callable[[str, str], IntArray]
    """Atoms of a selection in mdtraj's language; the second argument is its key, for messages."""
    integrator: Callable[[str], Any]
    """For segments: "simulation" gives None, "nve" velocity Verlet with the same timestep."""
    warn: Callable[[str], None]
    """Tells the user one line."""

    def select(self, selection: str | None, key: str = "atoms") -> IntArray | None:
        """Atoms of a selection, the default ones for None.

        Raises
        ------
        ConfigurationError
            If the selection cannot be read, or names no atom.
        """
        return self.atoms if selection is None else self.find(selection, f"target.{key}")
