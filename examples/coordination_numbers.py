"""How to add an observable: one class in one file, here how many neighbours a particle has.

A configuration names it by the file, `observable = "coordination_numbers.py:CoordinationNumbers"`;
a script imports it. Axis, rules and settings are all that files, targets, tables and figures ask.
"""

import numpy as np
from vesin import NeighborList

from openmm_diffsim import Observable
from openmm_diffsim.curve import CurveRules


class CoordinationNumbers(Observable):
    """P(n), the share of particles that have n others closer than r_cut (nm).

    P is [most + 1], for n = 0 .. most; the last counts all that have as many or more.
    """

    entry = "coordination"  # coordination_0.csv, and a name for configurations
    symbol = "P(n)"
    rules = CurveRules("P(n)", "n", "P", "dimensionless", least_y=0.0, expected_y="P >= 0")
    is_histogram = True

    def __init__(self, r_cut, most=16, atoms=None):
        self.r_cut, self.most, self.atoms = float(r_cut), int(most), atoms
        self.n_values = self.most + 1

    def axis(self, timestep):
        return self.rules.axis(np.arange(self.n_values, dtype=float))

    @classmethod
    def settings(cls, section):  # its keys in a configuration: the arguments above
        return {
            "r_cut": section.number("r_cut", above=0),
            "most": section.integer("most", 16, at_least=4),
            "atoms": section.text("atoms", None),
        }

    def recorder(self, particles):
        return _Counter(self)

    def values(self, records, conditions):
        return records


class _Counter:
    histograms = ()  # of pair distances: none is needed

    def __init__(self, observable):
        self.atoms = slice(None) if observable.atoms is None else observable.atoms
        self.most = observable.most
        self.neighbors = NeighborList(cutoff=observable.r_cut, full_list=True)

    def record(self, frame, counts):
        x, box = frame.positions[self.atoms], frame.box
        box, periodic = (np.zeros((3, 3)), False) if box is None else (box, True)
        (centres,) = self.neighbors.compute(x, box, periodic, "i")
        n = np.bincount(centres, minlength=len(x)).clip(max=self.most)
        return np.bincount(n, minlength=self.most + 1) / len(x)
