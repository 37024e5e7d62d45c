"""From a potential to an OpenMM Force, and back: one adapter a kind."""

from .base import Adapter, FeatureRecorder, attached
from .bonded import BondAdapter, BondedAdapter
from .bonds import Bonds, bonds_of
from .network import NetworkAdapter, chosen_backend
from .others import acting_forces, beyond_pairs, charges_between, nonbonded_between
from .pair import PairAdapter
from .pair_force import knot_table, pair_force, set_coefficients
from .part import FieldPart
from .sum import SumAdapter
from .system import has_energy, has_native_force, other_forces, portable_system, readable_elsewhere
from .tabulated import LearnedTables, PairTables, TupleTables, learned_tables

__all__ = [
    "Adapter",
    "BondAdapter",
    "BondedAdapter",
    "Bonds",
    "FeatureRecorder",
    "FieldPart",
    "LearnedTables",
    "NetworkAdapter",
    "PairAdapter",
    "PairTables",
    "SumAdapter",
    "TupleTables",
    "acting_forces",
    "attached",
    "beyond_pairs",
    "bonds_of",
    "charges_between",
    "chosen_backend",
    "has_energy",
    "has_native_force",
    "knot_table",
    "learned_tables",
    "nonbonded_between",
    "other_forces",
    "pair_force",
    "portable_system",
    "readable_elsewhere",
    "set_coefficients",
]
