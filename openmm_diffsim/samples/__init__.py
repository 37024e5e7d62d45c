"""What was recorded, and what follows from it at any parameters."""

from .evaluated import EvaluatedFrames, bars
from .features import Features, LearnedEnergy, SumOfFeatures
from .recorded import Recorded, Run, check_same_forces
from .samples import Samples
from .several import estimate
from .view import View

__all__ = [
    "EvaluatedFrames",
    "Features",
    "LearnedEnergy",
    "Recorded",
    "Run",
    "Samples",
    "SumOfFeatures",
    "View",
    "bars",
    "check_same_forces",
    "estimate",
]
