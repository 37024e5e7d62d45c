"""Differentiable reweighting for OpenMM: learn a force until simulation and experiment agree."""

from .curve import Axis, Curve
from .engine import segments
from .engine.adapters import portable_system  # its module connects PairPotential.attach to OpenMM
from .engine.native import SplinePairForce  # its module loads the plugin
from .engine.recorder import SampleReporter, sample_trajectory
from .engine.segments import DynamicAverage, SegmentOptions
from .engine.statepoint import StatePoint
from .observables import (
    MSD,
    RDF,
    VACF,
    AngleDistribution,
    Configurations,
    Diffusion,
    FunctionOfAverages,
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
from .statistics.averages import Estimate

__version__ = "0.1.0"

__all__ = [
    "MSD",
    "RDF",
    "VACF",
    "AngleDistribution",
    "Axis",
    "Configurations",
    "Curve",
    "Diffusion",
    "DynamicAverage",
    "Estimate",
    "FunctionOfAverages",
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
    "SegmentOptions",
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
    "segments",
]
