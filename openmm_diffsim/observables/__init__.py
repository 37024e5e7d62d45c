"""What is measured, per frame."""

from .angles import AngleDistribution
from .base import (
    ENTRIES,
    AxisVirials,
    Charges,
    Conditions,
    Frame,
    Observable,
    Particles,
    Recorder,
    record_frame,
)
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
from .electrostatics import DielectricConstant
from .fluctuations import (
    Covariance,
    HeatCapacity,
    IsothermalCompressibility,
    SpecificHeatCapacity,
    ThermalExpansion,
)
from .function import FunctionOfAverages, check_observable, linearized, parts_of
from .pressure import Pressure, PressureTensor, SurfaceTension
from .segment import Segment, SegmentObservable
from .site import Place, Section, Site
from .smooth import SmoothRDF
from .structure import RDF
from .thermodynamics import Density, Enthalpy, HeatOfVaporization, PotentialEnergy, Volume

__all__ = [
    "ENTRIES",
    "MSD",
    "RDF",
    "VACF",
    "AngleDistribution",
    "AxisVirials",
    "BondDistribution",
    "Charges",
    "Conditions",
    "Configurations",
    "Covariance",
    "Density",
    "DielectricConstant",
    "Diffusion",
    "DihedralDistribution",
    "Enthalpy",
    "Frame",
    "FunctionOfAverages",
    "HeatCapacity",
    "HeatOfVaporization",
    "IncoherentScattering",
    "IsothermalCompressibility",
    "Observable",
    "Particles",
    "Place",
    "PotentialEnergy",
    "Pressure",
    "PressureTensor",
    "Recorder",
    "Section",
    "Segment",
    "SegmentFunction",
    "SegmentObservable",
    "SelfVanHove",
    "Site",
    "SmoothRDF",
    "SpecificHeatCapacity",
    "SurfaceTension",
    "ThermalExpansion",
    "Volume",
    "check_observable",
    "linearized",
    "parts_of",
    "record_frame",
]
