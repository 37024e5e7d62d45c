"""What is measured, per frame."""

from .base import Conditions, Frame, Observable, Particles, Recorder, record_frame
from .structure import RDF
from .thermodynamics import Pressure

__all__ = [
    "RDF",
    "Conditions",
    "Frame",
    "Observable",
    "Particles",
    "Pressure",
    "Recorder",
    "record_frame",
]
