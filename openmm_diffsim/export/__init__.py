"""What was learned, for LAMMPS, GROMACS and HOOMD-blue; and their tables back in."""

from ..io import read_tabulated
from .gromacs import gromacs, write_gromacs
from .hoomd import hoomd, write_hoomd
from .lammps import REAL, LammpsUnits, lammps, lennard_jones_units, write_lammps
from .model import Model, model_of
from .results import read_results
from .written import Exported

ENGINES = {"lammps": write_lammps, "gromacs": write_gromacs, "hoomd": write_hoomd}
"""What writes a ``Model`` for each program, to a folder."""

__all__ = [
    "ENGINES",
    "REAL",
    "Exported",
    "LammpsUnits",
    "Model",
    "gromacs",
    "hoomd",
    "lammps",
    "lennard_jones_units",
    "model_of",
    "read_results",
    "read_tabulated",
]
