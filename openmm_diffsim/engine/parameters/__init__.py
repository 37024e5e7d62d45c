"""Parameters of forces that are in a System already: terms, and the potential made of them."""

from .adapter import SystemParametersAdapter
from .charges import ChargesTerm
from .lennard_jones import LennardJonesTerm
from .system import SystemParameters
from .term import ForcePlace, Term

__all__ = [
    "ChargesTerm",
    "ForcePlace",
    "LennardJonesTerm",
    "SystemParameters",
    "SystemParametersAdapter",
    "Term",
]
