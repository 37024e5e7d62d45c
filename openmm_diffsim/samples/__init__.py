"""What was recorded, and what follows from it at any parameters."""

from .samples import Run, Samples

__all__ = ["Run", "Samples"]
