"""Differentiable reweighting for OpenMM: learn a force until simulation and experiment agree."""

from .averages import Estimate
from .forces import portable_system  # its module connects PairPotential.attach to OpenMM
from .native import SplinePairForce  # its module loads the plugin
from .observables import (
    MSD,
    RDF,
    VACF,
    AngleDistribution,
    Configurations,
    Diffusion,
    IncoherentScattering,
    Observable,
    Pressure,
    Segment,
    SegmentFunction,
    SegmentObservable,
    SelfVanHove,
    SmoothRDF,
)
from .potentials import (
    LennardJones,
    Mie,
    Morse,
    NetworkPotential,
    NeuralPair,
    PairPotential,
    PairSum,
    SoftSphere,
    SplinePair,
    TemperatureDependent,
    TorchMDNet,
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
from .segments import DynamicAverage
from .statepoint import StatePoint

__version__ = "0.1.0"

__all__ = [
    "MSD",
    "RDF",
    "VACF",
    "AngleDistribution",
    "Configurations",
    "Diffusion",
    "DynamicAverage",
    "Estimate",
    "GaussNewton",
    "GaussNewtonOptions",
    "IncoherentScattering",
    "IterativeBoltzmannInversion",
    "LennardJones",
    "Mie",
    "Morse",
    "NetworkPotential",
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
    "Segment",
    "SegmentFunction",
    "SegmentObservable",
    "SelfVanHove",
    "SmoothRDF",
    "SoftSphere",
    "SplinePair",
    "SplinePairForce",
    "StatePoint",
    "Target",
    "TemperatureDependent",
    "TorchMDNet",
    "TorchOptimizer",
    "Yukawa",
    "boltzmann_inversion",
    "portable_system",
    "sample_trajectory",
]
