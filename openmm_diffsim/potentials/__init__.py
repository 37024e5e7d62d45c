"""What is learned: pair potentials as torch modules."""

from .analytic import LennardJones, Mie, Morse, SoftSphere, Yukawa
from .base import PairPotential, parameter_chain
from .basis import SplineBasis, n_pairs_of_types, pair_index
from .composite import PairSum, TemperatureDependent
from .neural import NeuralPair
from .spline import SplinePair

__all__ = [
    "LennardJones",
    "Mie",
    "Morse",
    "NeuralPair",
    "PairPotential",
    "PairSum",
    "SoftSphere",
    "SplineBasis",
    "SplinePair",
    "TemperatureDependent",
    "Yukawa",
    "n_pairs_of_types",
    "pair_index",
    "parameter_chain",
]
