"""What is learned: pair potentials and networks, as torch modules."""

from .base import PairPotential, Potential, parameter_chain
from .network.neighbors import NeighborPairs
from .network.network import NetworkPotential
from .network.pair_energy import PairEnergy
from .network.torchmdnet import TorchMDNet
from .pair.analytic import AnalyticPair, LennardJones, Mie, Morse, SoftSphere, Yukawa
from .pair.basis import SplineBasis, n_pairs_of_types, pair_index
from .pair.composite import PairSum, TemperatureDependent
from .pair.neural import NeuralPair
from .pair.spline import SplinePair
from .pair.table_error import TableError
from .parameters import (
    flat_parameters,
    learned_parameters,
    parameter_vector,
    parameters_at,
    set_flat_parameters,
)

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
