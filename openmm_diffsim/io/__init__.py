"""Tables in, tables out: what was measured, potentials, and files that are whole or not there."""

from .archive import read_arrays
from .curves import read_curve, tidy
from .files import atomic_write_bytes, csv_bytes, json_bytes, write_csv, write_json
from .frames import Frames, FrameWriter
from .matrices import read_matrix
from .regular import check_regular, read_regular
from .tables import read_potential, read_tabulated

__all__ = [
    "FrameWriter",
    "Frames",
    "atomic_write_bytes",
    "check_regular",
    "csv_bytes",
    "json_bytes",
    "read_arrays",
    "read_curve",
    "read_matrix",
    "read_potential",
    "read_regular",
    "read_tabulated",
    "tidy",
    "write_csv",
    "write_json",
]
