"""Tables in, tables out: measured g(r), potentials, and files that are whole or not there."""

from .files import atomic_write_bytes, write_csv, write_json
from .rdf import RDFData, check_rdf, clean_rdf, read_rdf
from .tables import read_potential

__all__ = [
    "RDFData",
    "atomic_write_bytes",
    "check_rdf",
    "clean_rdf",
    "read_potential",
    "read_rdf",
    "write_csv",
    "write_json",
]
