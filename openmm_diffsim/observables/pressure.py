"""Pressure, along each axis too, and the tension of a surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import ObservableError
from ..statistics.kernels import PairHistogram
from ..units import BAR, MOLAR_GAS_CONSTANT
from .arguments import at_least
from .base import Array, Conditions, Frame, IntArray, Liquid, Observable, Particles, Recorder
from .site import Section

_AXES = ("x", "y", "z")
_MN_PER_M = 0.1  # in one bar nm


class Pressure(Observable):
    """Pressure of the configurations, in bar, from the molecular virial.

        P = [N_mol R T + (W_learned + W_rest) / 3] / V,   W = -3 V dU/dV,

    where the volume derivative moves whole molecules, as OpenMM's barostats do, so constraints
    need no forces. The gradient has both parts,

        d<P>/dc = <dW_learned/dc / (3 V)> - beta Cov(P, dU/dc).

    W_rest, of all other forces, is a central difference of OpenMM's own energy (0.1 % in the box
    length); it is zero, and costs nothing, where the learned force is the only one. Pairs that come
    within a cutoff by that count where their energy jumps there, which is noise: see
    ``PressureTensor`` for how much, and what takes it away.

    The kinetic part is the exact canonical average, not the velocities of the moment. Energies
    beyond the cutoff count only as far as the System's own forces count them.
    """

    entry = "pressure"
    needs_virial = True
    needs_box = True
    kind = "pressure"

    def recorder(self, particles: Particles) -> Recorder:
        """Keeps the number of molecules and the virial of the other forces."""
        return _PressureRecorder(particles.n_molecules)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """Pressure in each frame, bar, shape [frames, 1]."""
        n_molecules, rest_virial = records[:, 0], records[:, 1]
        learned = conditions.learned_virial(conditions.coefficients)
        kinetic = n_molecules * MOLAR_GAS_CONSTANT * conditions.temperature
        return (BAR * (kinetic + (learned + rest_virial) / 3) / conditions.volume)[:, None]

    def liquid_response(self, liquid: Liquid) -> Array | None:
        """By the virial equation."""
        return liquid.of_pressure()


class _PressureRecorder:
    histograms: tuple[PairHistogram, ...] = ()

    def __init__(self, n_molecules: int) -> None:
        self.n_molecules = n_molecules

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        if frame.box is None:
            raise ObservableError("Pressure: needs a periodic box, the System has none")
        return np.array([float(self.n_molecules), frame.rest_virial])


class PressureTensor(Observable):
    """Pressure along each axis of the box, bar, [3],

        P_a = [N_mol R T + W_a] / V,   W_a = -dU/d ln L_a,

    with the box scaled along one axis, where whole molecules move, as in ``Pressure``, of which
    this has three times as the sum. The kinetic part is the exact canonical average of the centres
    of mass of molecules, N_mol R T along each axis, not the velocities of the moment.

    W_a is a central difference over 0.1 % of the box, of learned forces too: six energies a frame.
    Pairs that come within a cutoff by that count where their energy jumps there, as the truncated
    virial of the forces does not: noise of some 100 bar a frame for a small box of water with PME
    at OpenMM's default tolerance. It averages out over frames, and error
    bars have it. A switching function together with ewaldErrorTolerance = 1e-6 takes it away, where
    one of them alone does not: of a frame of 27 waters all steps from 0.3 % to 0.001 % then give
    the same to 4 bar of 11 000.
    The off-diagonal elements, zero on average in a fluid, are left out.

    Raises
    ------
    ObservableError
        Without a box, or of a network.
    """

    entry = "pressure-tensor"
    kind = "pressure"
    n_values = 3
    needs_axes = True
    needs_box = True
    needs_molecules = True

    def recorder(self, particles: Particles) -> Recorder:
        """Keeps the number of molecules, the edges of the box, and virials along each axis."""
        return _AxesRecorder(self.label, particles.n_molecules)

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """P_xx, P_yy and P_zz of each frame, bar, [frames, 3]."""
        kinetic = records[:, :1] * MOLAR_GAS_CONSTANT * conditions.temperature
        slopes = records[:, 7:].reshape(len(records), 3, -1)
        virial = records[:, 4:7] + slopes @ conditions.coefficients
        return BAR * (kinetic + virial) / conditions.volume[:, None]


class SurfaceTension(PressureTensor):
    """Surface tension of a slab, mN/m,

        gamma = L_n (P_nn - (P_tt + P_ss) / 2) / interfaces,

    n being the normal of its surfaces, by the tensor of ``PressureTensor`` (Kirkwood and Buff,
    J. Chem. Phys. 17, 338 (1949)). What acts beyond a cutoff is left out, and with Lennard-Jones
    forces that is much: take LJPME, or a long cutoff.

    Parameters
    ----------
    axis : "x", "y" or "z"
        The normal of the surfaces.
    interfaces : int
        How many there are: 2 of a slab in a periodic box.
    """

    entry = "surface-tension"
    kind = "surface_tension"
    n_values = 1

    def __init__(self, axis: str = "z", interfaces: int = 2) -> None:
        if axis not in _AXES:
            raise ObservableError(f"axis: expected one of {_AXES}, got {axis!r}", got=axis)
        self.axis_of_normal = axis
        self.interfaces = at_least(1, "interfaces", interfaces)

    def recorder(self, particles: Particles) -> Recorder:
        """As that of the tensor, for a box whose height along the normal is an edge."""
        normal = _AXES.index(self.axis_of_normal)
        return _AxesRecorder(self.label, particles.n_molecules, normal)

    @classmethod
    def settings(cls, section: Section) -> dict[str, Any]:
        """``axis`` and ``interfaces``."""
        return {
            "axis": section.choice("axis", _AXES, "z"),
            "interfaces": section.integer("interfaces", 2, at_least=1),
        }

    def values(self, records: Tensor, conditions: Conditions) -> Tensor:
        """Of each frame, mN/m, [frames, 1]."""
        along = super().values(records, conditions)
        n = _AXES.index(self.axis_of_normal)
        difference = 1.5 * along[:, n] - 0.5 * along.sum(dim=1)
        return (_MN_PER_M * records[:, 1 + n] * difference / self.interfaces)[:, None]


class _AxesRecorder:
    histograms: tuple[PairHistogram, ...] = ()

    def __init__(self, label: str, n_molecules: int, normal: int | None = None) -> None:
        self.label = label
        self.n_molecules = n_molecules
        self.normal = normal

    def record(self, frame: Frame, counts: Sequence[IntArray]) -> Array:
        if frame.axes is None or frame.box is None:
            raise ObservableError(f"{self.label}: needs a periodic box, the System has none")
        if self.normal is not None and frame.box[self.normal + 1 :, self.normal].any():
            raise ObservableError(
                f"{self.label}: the surface is to lie across {_AXES[self.normal]}, but the box is "
                f"oblique to it: {frame.box.round(6).tolist()} nm; take axis='z' or another box"
            )
        edges = np.diag(frame.box)
        n = np.array([float(self.n_molecules)])
        return np.concatenate([n, edges, frame.axes.rest, frame.axes.features.ravel()])
