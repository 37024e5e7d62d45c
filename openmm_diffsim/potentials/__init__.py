"""What is learned: pair potentials and networks, as torch modules."""

from .analytic import AnalyticPair, LennardJones, Mie, Morse, SoftSphere, Yukawa
from .base import PairPotential, Potential, parameter_chain
from .basis import SplineBasis, n_pairs_of_types, pair_index
from .composite import PairSum, TemperatureDependent
from .neighbors import NeighborPairs
from .network import NetworkPotential
from .neural import NeuralPair
from .pair_energy import PairEnergy
from .parameters import (
    flat_parameters,
    learned_parameters,
    parameter_vector,
    parameters_at,
    set_flat_parameters,
)
from .spline import SplinePair
from .table_error import TableError
from .torchmdnet import TorchMDNet

__all__ = [
    "AnalyticPair",
    "LennardJones",
    "Mie",
    "Morse",
    "NeighborPairs",
    "NetworkPotential",
    "NeuralPair",
    "PairEnergy",
    "PairPotential",
    "PairSum",
    "Potential",
    "SoftSphere",
    "SplineBasis",
    "SplinePair",
    "TableError",
    "TemperatureDependent",
    "TorchMDNet",
    "Yukawa",
    "flat_parameters",
    "learned_parameters",
    "n_pairs_of_types",
    "pair_index",
    "parameter_chain",
    "parameter_vector",
    "parameters_at",
    "set_flat_parameters",
]
