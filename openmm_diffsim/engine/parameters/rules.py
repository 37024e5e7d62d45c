"""Combination rules: the sigma of a pair by those of its particles; epsilon is always geometric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Rule = Callable[[Any, Any], Any]


def arithmetic(a: Any, b: Any) -> Any:
    """Of Lorentz: Amber, CHARMM, OpenMM's own."""
    return 0.5 * (a + b)


def geometric(a: Any, b: Any) -> Any:
    """Of OPLS and GROMOS, with which coefficients of r^-12 and r^-6 are geometric means, too."""
    return (a * b) ** 0.5
