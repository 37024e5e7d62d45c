"""What was learned, for other programs: LAMMPS, GROMACS, HOOMD; and their tables back in."""

from .lammps import REAL, LammpsUnits, lammps, lennard_jones_units
from .model import Model, model_of
from .written import Exported

__all__ = [
    "REAL",
    "Exported",
    "LammpsUnits",
    "Model",
    "lammps",
    "lennard_jones_units",
    "model_of",
]
