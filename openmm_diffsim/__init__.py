"""Differentiable reweighting for OpenMM: learn a force until simulation and experiment agree."""

from . import forces as forces  # connects PairPotential.attach to OpenMM
from .averages import Estimate
from .observables import RDF, Observable, Pressure
from .potentials import (
    LennardJones,
    Mie,
    Morse,
    NeuralPair,
    PairPotential,
    PairSum,
    SoftSphere,
    SplinePair,
    TemperatureDependent,
    Yukawa,
)
from .refinement import (
    GaussNewton,
    GaussNewtonOptions,
    IterativeBoltzmannInversion,
    Refinement,
    RelativeEntropy,
    Round,
    Target,
    TorchOptimizer,
    boltzmann_inversion,
)
from .samples import Samples
from .sampling import SampleReporter, sample_trajectory
from .statepoint import StatePoint

__version__ = "0.1.0"

__all__ = [
    "RDF",
    "Estimate",
    "GaussNewton",
    "GaussNewtonOptions",
    "IterativeBoltzmannInversion",
    "LennardJones",
    "Mie",
    "Morse",
    "NeuralPair",
    "Observable",
    "PairPotential",
    "PairSum",
    "Pressure",
    "Refinement",
    "RelativeEntropy",
    "Round",
    "SampleReporter",
    "Samples",
    "SoftSphere",
    "SplinePair",
    "StatePoint",
    "Target",
    "TemperatureDependent",
    "TorchOptimizer",
    "Yukawa",
    "boltzmann_inversion",
    "sample_trajectory",
]
