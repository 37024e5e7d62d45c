"""What is measured, per frame."""

from .angles import AngleDistribution
from .base import Conditions, Frame, Observable, Particles, Recorder, record_frame
from .configurations import Configurations
from .dynamics import (
    MSD,
    VACF,
    Diffusion,
    IncoherentScattering,
    SegmentFunction,
    SelfVanHove,
    SmoothRDF,
)
from .segment import Segment, SegmentObservable
from .structure import RDF
from .thermodynamics import Pressure

__all__ = [
    "MSD",
    "RDF",
    "VACF",
    "AngleDistribution",
    "Conditions",
    "Configurations",
    "Diffusion",
    "Frame",
    "IncoherentScattering",
    "Observable",
    "Particles",
    "Pressure",
    "Recorder",
    "Segment",
    "SegmentFunction",
    "SegmentObservable",
    "SelfVanHove",
    "SmoothRDF",
    "record_frame",
]
