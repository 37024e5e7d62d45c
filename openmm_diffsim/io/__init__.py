"""Tables in, tables out: what was measured, potentials, and files that are whole or not there."""

from .angles import AngleData, clean_angles, read_angles
from .correlation import CorrelationData, check_vacf, clean_correlation, read_correlation
from .files import atomic_write_bytes, write_csv, write_json
from .frames import Frames, FrameWriter
from .rdf import RDFData, check_rdf, clean_rdf, read_rdf
from .tables import read_potential

__all__ = [
    "AngleData",
    "CorrelationData",
    "FrameWriter",
    "Frames",
    "RDFData",
    "atomic_write_bytes",
    "check_rdf",
    "check_vacf",
    "clean_angles",
    "clean_correlation",
    "clean_rdf",
    "read_angles",
    "read_correlation",
    "read_potential",
    "read_rdf",
    "write_csv",
    "write_json",
]
