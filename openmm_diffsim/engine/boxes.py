"""Which box counts, where a topology, a System and a State each have one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

Array = NDArray[np.float64]

_DEFAULT = 2.0 * np.eye(3)  # nm, OpenMM's, of a System that was never given one
_ROUNDING = 1e-3  # nm, of a PDB file, and of programs that write one
_ROUNDING_OF_ANGLES = 1e-4  # rad, half of 0.01 degrees in a PDB file
_LEAST_VOLUME = 0.01  # nm^3: 1 x 1 x 1 angstrom in a PDB file stands for no box


def settle_box(
    topology: app.Topology,
    system: openmm.System,
    state: openmm.State | None,
    tell: Callable[[str], None],
) -> None:
    """Give System and topology the box that the first positions are in; tell where boxes differ.

    Positions and box belong together: those of a State, or else those of the topology's file. If
    that has none, or the same to rounding, the System's own stays.
    """
    own, written = _array(system.getDefaultPeriodicBoxVectors()), topology_box(topology)
    counts = own
    if state is not None:
        counts = present = _array(state.getPeriodicBoxVectors())
        if written is not None and not _same(present, written):
            tell(
                f"the box of system.topology is {_words(written)}, that of system.state "
                f"{_words(present)}: that of the state counts, as its positions do"
            )
    elif written is None:
        if _is_default(own):
            tell(
                "no file says how large the box is: the 2 nm cube counts, which OpenMM gives to a "
                "System that was given none"
            )
    elif not _same(own, written):
        of_default = ", OpenMM's for a System that was given none" if _is_default(own) else ""
        tell(
            f"the box of system.topology is {_words(written)}, that of system.system "
            f"{_words(own)}{of_default}: that of the topology counts, as its positions do"
        )
        counts = written
    system.setDefaultPeriodicBoxVectors(*counts)
    topology.setPeriodicBoxVectors(counts * unit.nanometer)


def warn_of_other_box(simulation: Any, pressure: float | None) -> None:
    """A warning where a Context's box is not its topology's, and no pressure may have changed it.

    Under a pressure (bar) only OpenMM's default box is warned of, which none leads to.
    """
    if not simulation.system.usesPeriodicBoundaryConditions():
        return
    written = topology_box(simulation.topology)
    present = _array(simulation.context.getState().getPeriodicBoxVectors())
    default = _is_default(present)
    if written is None or _same(present, written) or not (default or pressure is None):
        return
    of_default = ", OpenMM's default, as of a System that was never given one" if default else ""
    warnings.warn(
        f"the box of the Simulation's Context is {_words(present)}{of_default}, and it counts, "
        f"although the topology's is {_words(written)}; if that is the right one: "
        "simulation.context.setPeriodicBoxVectors(*topology.getPeriodicBoxVectors()), else: "
        "topology.setPeriodicBoxVectors(simulation.context.getState().getPeriodicBoxVectors())",
        RuntimeWarning,
        stacklevel=3,
    )


def topology_box(topology: Any) -> Array | None:
    """Of a topology, nm, [3, 3]; None if it has none."""
    vectors = topology.getPeriodicBoxVectors()
    if vectors is None:
        return None
    box = _array(vectors)
    return box if abs(np.linalg.det(box)) > _LEAST_VOLUME else None


def _array(vectors: Any) -> Array:
    return np.array([list(v.value_in_unit(unit.nanometer)) for v in vectors], dtype=np.float64)


def _same(a: Array, b: Array) -> bool:
    by_angles = _ROUNDING_OF_ANGLES * np.abs(a).max() if _oblique(a) else 0.0
    return bool(np.allclose(a, b, rtol=0, atol=_ROUNDING + by_angles))


def _oblique(box: Array) -> bool:
    return not np.allclose(box, np.diag(np.diag(box)), atol=_ROUNDING)


def _is_default(box: Array) -> bool:
    return bool(np.array_equal(box, _DEFAULT))


def _words(box: Array) -> str:
    lengths = " x ".join(f"{length:.6g}" for length in np.linalg.norm(box, axis=1))
    return f"{lengths} nm" + (" (triclinic)" if _oblique(box) else "")
