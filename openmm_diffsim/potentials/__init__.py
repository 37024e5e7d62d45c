"""What is learned: pair potentials, bonded ones and networks, as torch modules."""

from .adapter import AttachOptions, adapter_of, adapts, all_adapters
from .base import Potential, Sum
from .bonded.base import BondedSpline
from .bonded.basis import BondedBasis
from .bonded.spline import AngleSpline, BondSpline, DihedralSpline
from .network.neighbors import NeighborPairs
from .network.network import NetworkPotential
from .network.torchmdnet import TorchMDNet
from .pair.analytic import AnalyticPair, LennardJones, Mie, Morse, SoftSphere, Yukawa
from .pair.base import PairPotential
from .pair.basis import SplineBasis, n_pairs_of_types, pair_index
from .pair.composite import PairSum, TemperatureDependent
from .pair.neural import NeuralPair
from .pair.pair_energy import PairEnergy
from .pair.spline import SplinePair
from .pair.table_error import TableError
from .parameters import (
    call_at,
    flat_parameters,
    learned_parameters,
    parameter_vector,
    set_flat_parameters,
)
from .prior import ParameterPrior, prior_of

__all__ = [
    "AnalyticPair",
    "AngleSpline",
    "AttachOptions",
    "BondSpline",
    "BondedBasis",
    "BondedSpline",
    "DihedralSpline",
    "LennardJones",
    "Mie",
    "Morse",
    "NeighborPairs",
    "NetworkPotential",
    "NeuralPair",
    "PairEnergy",
    "PairPotential",
    "PairSum",
    "ParameterPrior",
    "Potential",
    "SoftSphere",
    "SplineBasis",
    "SplinePair",
    "Sum",
    "TableError",
    "TemperatureDependent",
    "TorchMDNet",
    "Yukawa",
    "adapter_of",
    "adapts",
    "all_adapters",
    "call_at",
    "flat_parameters",
    "learned_parameters",
    "n_pairs_of_types",
    "pair_index",
    "parameter_vector",
    "prior_of",
    "set_flat_parameters",
]
