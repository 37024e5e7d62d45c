"""What liquid-state theory says before much was sampled."""

from .liquid import Interaction, LiquidStructure, radial_transforms
from .state import LiquidTheory

__all__ = ["Interaction", "LiquidStructure", "LiquidTheory", "radial_transforms"]
