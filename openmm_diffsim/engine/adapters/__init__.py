"""From a potential to an OpenMM Force, and back.

A pair potential is run by the plugin's SplinePairForce or by a table (``pair``), a network by
Python (``network``) or by TorchForce (``torchforce``).
"""

from .attached import (
    attach,
    attached_force,
    find_force,
    portable_system,
    update_force,
)
from .network import chosen_backend, network_types, raise_interrupt
from .pair import (
    coefficients_in,
    force_exclusions,
    has_native_force,
    knot_table,
    other_forces,
    particle_types,
    set_coefficients,
    sums_over_pairs,
)

__all__ = [
    "attach",
    "attached_force",
    "chosen_backend",
    "coefficients_in",
    "find_force",
    "force_exclusions",
    "has_native_force",
    "knot_table",
    "network_types",
    "other_forces",
    "particle_types",
    "portable_system",
    "raise_interrupt",
    "set_coefficients",
    "sums_over_pairs",
    "update_force",
]
