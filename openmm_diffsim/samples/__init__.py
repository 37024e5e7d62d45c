"""What was recorded, and what follows from it at any parameters."""

from .evaluated import EvaluatedFrames, bars
from .features import Features, LearnedEnergy, SumOfFeatures
from .recorded import Recorded, Run
from .samples import Samples
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
]
