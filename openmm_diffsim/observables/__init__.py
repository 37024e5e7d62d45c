"""What is measured, per frame."""

from .base import Conditions, Frame, Observable, Particles, Recorder, record_frame
from .segment import Segment, SegmentObservable
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
    "Segment",
    "SegmentObservable",
    "record_frame",
]
