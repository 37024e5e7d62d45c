"""Pressure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..errors import ObservableError
from ..statistics.kernels import PairHistogram
from ..units import BAR, MOLAR_GAS_CONSTANT
from .base import Array, Conditions, Frame, IntArray, Liquid, Observable, Particles, Recorder


class Pressure(Observable):
    """Pressure of the configurations, in bar, from the molecular virial.

        P = [N_mol R T + (W_learned + W_rest) / 3] / V,   W = -3 V dU/dV,

    where the volume derivative moves whole molecules, as OpenMM's barostats do, so constraints
    need no forces. The gradient has both parts,

        d<P>/dc = <dW_learned/dc / (3 V)> - beta Cov(P, dU/dc).

    W_rest, of all other forces, is a central difference of OpenMM's own energy (0.1 % in the box
    length); it is zero, and costs nothing, where the learned force is the only one.

    The kinetic part is the exact canonical average, not the velocities of the moment. Energies
    beyond the cutoff count only as far as the System's own forces count them.
    """

    entry = "pressure"
    needs_virial = True
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
