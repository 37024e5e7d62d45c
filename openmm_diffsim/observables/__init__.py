"""What is measured, per frame."""

from .angles import AngleDistribution
from .base import ENTRIES, Conditions, Frame, Observable, Particles, Recorder, record_frame
from .bonded import BondDistribution, DihedralDistribution
from .configurations import Configurations
from .dynamics import (
    MSD,
    VACF,
    Diffusion,
    IncoherentScattering,
    SegmentFunction,
    SelfVanHove,
)
from .function import FunctionOfAverages
from .segment import Segment, SegmentObservable
from .site import Place, Section, Site
from .smooth import SmoothRDF
from .structure import RDF
from .thermodynamics import Pressure

__all__ = [
    "ENTRIES",
    "MSD",
    "RDF",
    "VACF",
    "AngleDistribution",
    "BondDistribution",
    "Conditions",
    "Configurations",
    "Diffusion",
    "DihedralDistribution",
    "Frame",
    "FunctionOfAverages",
    "IncoherentScattering",
    "Observable",
    "Particles",
    "Place",
    "Pressure",
    "Recorder",
    "Section",
    "Segment",
    "SegmentFunction",
    "SegmentObservable",
    "SelfVanHove",
    "Site",
    "SmoothRDF",
    "record_frame",
]
