"""Parameters of the forces that a System has already, as a potential."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import PotentialError
from ...potentials import Potential, call_at, parameter_vector
from ...potentials.parameters import check_mapping
from .charges import ChargesTerm
from .custom import CustomTerm, GlobalTerm, MapTerm
from .lennard_jones import LennardJonesTerm
from .listed import AngleTerm, BondTerm, RBTorsionTerm, TorsionTerm
from .pair_tables import PairTablesTerm
from .term import Term, check_apart

Array = NDArray[np.float64]


class SystemParameters(Potential):
    """Parameters of forces that are in a System already, which are learned; nothing is added to it.

        water = diffsim.SystemParameters(system)
        water.lennard_jones(atoms=oxygens)
        liquid = diffsim.StatePoint(simulation, water)

    Each method adds a term. The parameters start from the System's, which has the learned ones from
    the first StatePoint on; whatever else its forces do stays as it is. The energy that depends on
    the parameters is linear in the coefficients, exactly: a frame's features say its energy at any
    parameters.

    ``attach`` is for another System of the same atom types, such as the vapour: the parameters are
    then those of both.

    Parameters
    ----------
    system : openmm.System
    name : str
        By which a sum of potentials knows it.
    """

    depends_on_temperature = False

    def __init__(self, system: openmm.System, name: str = "parameters") -> None:
        if not isinstance(system, openmm.System):
            raise PotentialError(f"system: expected an openmm.System, got {system!r}", got=system)
        super().__init__(name=name)
        self.terms = nn.ModuleDict()
        self._system: openmm.System | None = system

    def lennard_jones(self, atoms: Any = None, **options: Any) -> LennardJonesTerm:
        """Learn sigma and epsilon of atoms, Amber's, OPLS's, ...; see ``LennardJonesTerm.of``."""
        return self._made("lennard_jones", LennardJonesTerm, atoms, **options)

    def pair_tables(self, atoms: Any = None, **options: Any) -> PairTablesTerm:
        """Learn sigma and epsilon of a CustomNonbondedForce with tables: CHARMM's, with NBFIX.

        See ``PairTablesTerm.of``.
        """
        return self._made("pair_tables", PairTablesTerm, atoms, **options)

    def bonds(self, select: Any = None, **options: Any) -> BondTerm:
        """Learn k and r0 of a HarmonicBondForce.

        Parameters
        ----------
        select : None, sequence of int, sequence of tuples of str, or mapping of names to either
            Which entries of the Force: their indices, or the ``types`` of their particles, as
            [("CT", "HC"), ("CT", "*")], in either direction. Those of one name of a mapping are one
            group, which has one k and one r0. Default: all.
        types : sequence of str, optional
            Of each particle of the System, such as ``atom_types`` gives; entries whose particles
            have the same types are then one group. Default: those with equal parameters are.
        each : bool
            Each entry is a group of its own.
        learn : tuple of str
            Which parameters; the others stay.
        bounds : dict, optional
            Of "k" or "r0", a least and a largest value, in md units or Quantities; of all groups,
            or a mapping of their names to such.
        force : str or openmm.Force, optional
            Which one, where there are several.
        name : str
            Of the term, unique. Two calls may learn different entries.

        Raises
        ------
        AttachError
            If the Force or what is selected is not there, or a group differs in itself.
        """
        return self._listed(BondTerm, "bonds", ("k", "r0"), select, options)

    def angles(self, select: Any = None, **options: Any) -> AngleTerm:
        """Learn k and theta0 of a HarmonicAngleForce; see ``bonds``."""
        return self._listed(AngleTerm, "angles", ("k", "theta0"), select, options)

    def torsions(self, select: Any = None, **options: Any) -> TorsionTerm:
        """Learn k of a PeriodicTorsionForce, and phases too if learn=("k", "phase"); see ``bonds``.

        Entries of several periodicities on the same particles are groups of their own.
        """
        return self._listed(TorsionTerm, "torsions", ("k",), select, options)

    def rb_torsions(self, select: Any = None, **options: Any) -> RBTorsionTerm:
        """Learn c0 .. c5 of an RBTorsionForce; see ``bonds``."""
        learn = RBTorsionTerm.learnable
        return self._listed(RBTorsionTerm, "rb_torsions", learn, select, options)

    def cmap(self, select: Any = None, **options: Any) -> MapTerm:
        """Learn a factor, 1 at the start, for each map of a CMAPTorsionForce.

        ``select``: indices of maps, or a mapping of names to those that share one factor; with
        each=False all have one. Further options: ``force``, ``bounds``, ``scale``, ``name``.
        """
        return self._made("cmap", MapTerm, select, **{"name": "cmap", **options})

    def global_parameters(self, *names: str, **options: Any) -> GlobalTerm:
        """Learn global parameters that forces declare: custom forces, offsets of a NonbondedForce.

        The energy may be a polynomial of them, such as k (r - r0)^2 of k and r0: then what is
        recorded is exact. Otherwise frames are stored and evaluated anew. Which it is is found by
        evaluations, from -3 to 5 times the value at the start or within bounds, and logged; a
        polynomial of a part of that does not count. Parameters that have to do with each other go
        into one call.

        Parameters
        ----------
        names : str
        linear : bool, optional
            False: do not look for a polynomial.
        positive : bool, bounds : dict, scale : float
            See ``Values``: what they may be. ``bounds``: a least and a largest value for some by
            name, {"lambda": (0, 1)}, or a pair for all.
        name : str
            Of the term. Default: the first parameter's.

        Raises
        ------
        AttachError
            If no force has such a parameter.
        """
        of = {"name": _plain(names), **options}
        return self._made("global_parameters", GlobalTerm, names, **of)

    def custom(self, *names: str, select: Any = None, **options: Any) -> CustomTerm:
        """Learn parameters per particle, bond, angle, torsion, donor, ... of a custom force.

        ``select``, ``types``, ``each`` and ``force`` say which, see ``bonds``; other options are
        those of ``global_parameters``.
        """
        of = {"name": _plain(names), **options}
        return self._made("custom", CustomTerm, names, select, **of)

    def _listed(self, kind: Any, name: str, learn: Any, select: Any, options: Any) -> Any:
        return self._made(name, kind, select, **{"name": name, "learn": learn, **options})

    def _made(self, method: str, kind: Any, *arguments: Any, **options: Any) -> Any:
        """The term that a method adds; PotentialError for an option that it has not."""
        own = signature(kind.of).parameters.values()
        known = [parameter.name for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise PotentialError(
                f"{method}: got {unknown[0]}=, expected of {', '.join(known)}", got=unknown[0]
            )
        return self.add(kind.of(self.system, *arguments, **options))

    def charges(self, atoms: Any = None, **options: Any) -> ChargesTerm:
        """Learn charges of atoms in a NonbondedForce; see ``ChargesTerm.of``."""
        return self._made("charges", ChargesTerm, atoms, **options)

    def add(self, term: Any) -> Any:
        """Add a term that was made for this System; returns it.

        Raises
        ------
        PotentialError
            If there is one of this name, or one of this kind in a Force that can have one only.
        """
        if term.name in self.terms:
            raise PotentialError(
                f"name: there is a term {term.name!r} already, give this one another name=",
                got=term.name,
            )
        check_apart(term, self)
        self.terms[term.name] = term
        self.energy_is_linear = all(t.energy_is_linear for t in self)
        return term

    @property
    def system(self) -> openmm.System:
        """That it was made of.

        Raises
        ------
        PotentialError
            In a copy that was unpickled, which has none: add all terms before.
        """
        if self._system is None:
            raise PotentialError(f"{self.name}: a copy has no System, add terms to the original")
        return self._system

    def __iter__(self) -> Iterator[Term]:
        return iter(self.terms.values())  # type: ignore[arg-type]

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Those of the terms, behind their names."""
        return {f"{t.name}.{block}": shape for t in self for block, shape in t.blocks.items()}

    def slices(self) -> list[slice]:
        """Where the coefficients of each term are."""
        ends = np.cumsum([len(term.coefficients()) for term in self]).tolist()
        return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]

    def coefficients(self, temperature: float | None = None) -> Tensor:
        """c of all terms, one after the other, [coefficients]."""
        parts = [term.coefficients() for term in self]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def numbers(self, table: Any = None) -> dict[str, tuple[float, float]]:
        """What was learned, in its own units, with standard errors: "lennard_jones.sigma[O]" in nm.

        Of parameters that are logarithms, say, ``fit.parameter_table()`` has those; this has the
        physical numbers, and those that follow from others, such as an oxygen's charge.

        Parameters
        ----------
        table : ParameterTable, optional
            From a fit of this potential alone; the errors are NaN without.
        """
        theta = parameter_vector(self).detach()
        if table is None:
            covariance = np.full((len(theta), len(theta)), np.nan)
        else:
            error = np.asarray(table.standard_error)
            covariance = error[:, None] * table.correlation * error
        slopes = torch.func.jacrev(self._told_at)(theta).numpy()
        error = np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", slopes, covariance, slopes), 0.0))
        values = self._told_at(theta).numpy(force=True)
        pairs = zip(values.tolist(), error.tolist(), strict=True)
        names = [f"{term.name}.{name}" for term in self for name in term.told()[0]]
        return dict(zip(names, pairs, strict=True))

    def _told_at(self, theta: Tensor) -> Tensor:
        found: Tensor = call_at(self, theta, "_told")
        return found

    def _told(self) -> Tensor:
        return torch.cat([term.told()[1] for term in self])

    def by_name(self) -> dict[str, nn.Parameter]:
        """All parameters, by what a user calls each: "lennard_jones.sigma"."""
        return {f"{t.name}.{name}": values.theta for t in self for name, values in t.values()}

    def kind_of(self, name: str) -> str | None:
        """Known where the parameter is the number itself, and no logarithm, say, of it."""
        found = {f"{t.name}.{n}": values for t in self for n, values in t.values()}
        return found[name].kind_of_theta if name in found else None

    def parameters_of(self, numbers: Mapping[str, Any]) -> Tensor:
        """theta from physical numbers too, by the names of ``numbers``, as "lj.sigma[O]" in nm.

            parameters.parameters_of({"lennard_jones.sigma[O]": 0.33, "charges.q[H]": 0.41})

        Raises
        ------
        PotentialError
            If there is no learned number of a name, it is not what it can be, or charges do not
            add up, or do not say all of those that depend on each other.
        """
        check_mapping(numbers)
        plain, left = dict[str, Any](), dict(numbers)
        for term in self:
            names = {f"{term.name}.{name}": name for name in term.told()[0]}
            given = {names[name]: left.pop(name) for name in list(left) if name in names}
            own = term.theta_of(given) if given else {}
            plain |= {f"{term.name}.{name}": theta for name, theta in own.items()}
        twice = sorted(plain.keys() & left.keys())
        if twice:
            raise PotentialError(
                f"parameters: got {twice[0]} as well as numbers of it by name", got=twice
            )
        return super().parameters_of(plain | left)

    def parameter_prior(self) -> tuple[Array, Array]:
        """Mean and standard deviation of theta before anything is measured, [parameters] each."""
        own = [v for t in self for _, v in t.values() if v.is_learned]
        spread = np.concatenate([values.spread() for values in own] or [np.zeros(0)])
        return parameter_vector(self).detach().numpy().copy(), spread

    def free_charges(self, coefficients: Tensor) -> Tensor:
        """Those of all terms."""
        sizes = [len(term.coefficients()) for term in self]
        pairs = zip(self, torch.split(coefficients, sizes), strict=True)
        return torch.cat([term.free_charges(part) for term, part in pairs])

    def form(self) -> dict[str, Any]:
        """The form of each term, by its name."""
        return {"kind": type(self).__name__, "terms": {t.name: t.form() for t in self}}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_system": None}


def _plain(names: Sequence[str]) -> str:
    """A term's name from that of its first parameter."""
    if not names or not all(isinstance(name, str) for name in names):
        raise PotentialError(f"expected names of parameters, got {names or 'none'}", got=names)
    return names[0].replace(".", "_")
