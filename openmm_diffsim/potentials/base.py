"""What every learnable potential is, as a torch module, and sums of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ..errors import PotentialError
from ..io.checksum import brief
from ..limits import checked_number, checked_whole, shown
from .adapter import AttachOptions, adapter_of
from .mask import left_out
from .parameters import call_at, check_mapping, parameter_vector, with_numbers
from .prior import checked_prior, prior_of_parts

Array = NDArray[np.float64]
Self = TypeVar("Self", bound="Potential")


class Potential(nn.Module):
    """Something that is learned and that OpenMM can run.

    Its energy depends on the configuration x and on a flat vector of coefficients c, which are a
    differentiable function of the parameters theta,

        U(x; theta) = U(x; c(theta, T)).

    Where ``energy_is_linear``, U = sum_k c_k S_k(x), and the features S of a frame say all about
    its energy at any parameters. Everything else that a fit has to know of a potential it answers
    itself: see the methods. What connects it with OpenMM is the ``Adapter`` of its kind.

    To add a kind: subclass, give ``coefficients`` where they are not the parameters themselves,
    and register an adapter for it with ``adapts``.

    Parameters
    ----------
    n_types : int
        Number of particle types.
    name : str
        Name of the OpenMM Force. Two potentials in one System need different names.
    """

    __jit_unused_properties__: tuple[str, ...] = ("blocks", "own_prior", "roughness")

    energy_is_linear = False
    """Is U linear in the coefficients?"""
    is_linear = False
    """Are the coefficients linear in the parameters?"""
    depends_on_temperature = True
    """Do the coefficients? Where not, state points of a fit share work."""

    def __init_subclass__(cls, **options: Any) -> None:
        """A kind that computes its coefficients in a way of its own may depend on temperature."""
        super().__init_subclass__(**options)
        own = cls.__dict__.keys()
        if own & {"coefficients", "unbound_coefficients"} and "depends_on_temperature" not in own:
            cls.depends_on_temperature = True

    def __init__(self, n_types: int = 1, name: str | None = None) -> None:
        super().__init__()
        checked_whole("n_types", n_types, PotentialError)
        self.n_types = n_types
        self.name = name or type(self).__name__
        self._own_prior: dict[str, tuple[Tensor, Tensor]] = {}
        self._roughness: float | None = None
        self._held: frozenset[str] = frozenset()  # parameters that learn_only leaves out

    def train(self, mode: bool = True) -> Potential:
        """Evaluation mode, whatever is asked for: a configuration has one energy.

        Dropout would give it another each time, and a batch norm one that the other frames decide.
        """
        return super().train(False)

    def by_name(self) -> dict[str, nn.Parameter]:
        """All parameters, by what a user calls each: as in ``named_parameters``."""
        return dict(self.named_parameters())

    def kind_of(self, name: str) -> str | None:
        """What kind of number a parameter is, one of ``units.UNIT_NAMES``; None: not known."""
        return None

    def parameters_of(self, numbers: Mapping[str, Any]) -> Tensor:
        """theta, [parameters], with these numbers by the names of ``by_name``, else as it is.

        Raises
        ------
        PotentialError
            If there is no learned parameter of a name, or the numbers do not fit it.
        """
        return with_numbers(self, numbers)

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Names of the stretches of the coefficients, in order, and the shape of each."""
        return {name: tuple(p.shape) for name, p in self._counted()}

    def coefficients(self, temperature: float | None = None) -> Tensor:
        """c, flat, [coefficients], with a graph to the parameters; by default these themselves.

        ``temperature`` (K) matters only to a temperature-dependent potential.
        """
        if not self._held:
            return parameter_vector(self)
        return torch.cat([p.reshape(-1).double().cpu() for _, p in self._counted()])

    def _counted(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters that are coefficients by default: where features know all, also those held."""
        held = self._held if self.energy_is_linear else ()
        return [
            (name, p)
            for name, p in self.named_parameters()
            if p.requires_grad or type(p) is Tensor or name in held
        ]

    def learn_only(self: Self, names: Any) -> Self:
        """Learn these parameters alone; all others stay as they are. Returns self.

            (pair + bonds).learn_only(["pair.epsilon", "bonds"])

        What stays is given: it is no parameter of a fit, and has no error.

        Parameters
        ----------
        names : sequence of str, or None
            Of parameters, see ``by_name``, of a term of a sum, which stands for all of it, or of a
            block, see ``blocks``. None: learn all again.

        Raises
        ------
        PotentialError
            If there is none of a name, or none is left to learn.
        """
        self._hold(left_out(self, names))
        return self

    def _held_parameters(self) -> list[nn.Parameter]:
        """Those that ``learn_only`` left out."""
        own = dict(self.named_parameters())
        return [own[name] for name in self._held]

    def _hold(self, parameters: set[int]) -> None:
        """Leave these out, by their ids, and learn again what was left out before."""
        held = frozenset(n for n, p in self.named_parameters() if id(p) in parameters)
        for name, p in self.named_parameters():
            if name in held or name in self._held:
                p.requires_grad_(name not in held)
        self._held = held

    def coefficients_at(self, theta: Tensor, temperature: float | None = None) -> Tensor:
        """c at other parameters, [coefficients], with a graph to theta [parameters]."""
        found: Tensor = call_at(self, theta, "coefficients", temperature)
        return found

    def pull_back(
        self, rows: Array, theta: Tensor | None = None, temperature: float | None = None
    ) -> Array:
        """rows @ dc/dtheta, [rows, parameters], of rows [rows, coefficients].

        At the present parameters, or at ``theta``.
        """
        leaf = (parameter_vector(self) if theta is None else theta).detach().requires_grad_(True)
        c = self.coefficients_at(leaf, temperature)
        if len(rows) == 0 or not c.requires_grad:
            return np.zeros((len(rows), len(leaf)))
        (slopes,) = torch.autograd.grad(c, leaf, torch.from_numpy(rows), is_grads_batched=True)
        return np.asarray(slopes.numpy())

    def prior_precision(
        self, temperature: float, length: float, roughness: float, n_temperatures: int = 1
    ) -> Array | None:
        """Inverse covariance of c - c_0 before anything is measured, [coefficients] squared.

        ``temperature`` in K, ``length``, nm, is the distance of nearest neighbours, ``roughness``
        how much may be learned, see ``PairPotential``. A fit at ``n_temperatures`` adds up one at
        each: what is the same at all of them has to count once in the sum. None: nothing is known.
        """
        return None

    def prior_blocks(
        self, temperature: float, length: float, roughness: float, n_temperatures: int = 1
    ) -> list[tuple[slice, Array]]:
        """``prior_precision`` where it is not zero: which coefficients, and their block of it.

        With the potential's own ``roughness``, where it has one.
        """
        known = roughness if self.roughness is None else self.roughness
        own = self.prior_precision(temperature, length, known, n_temperatures)
        return [] if own is None else [(slice(0, len(own)), own)]

    @property
    def roughness(self) -> float | None:
        """Its own, see ``set_roughness``; None: that of the method's options."""
        return self._roughness

    def set_roughness(self: Self, roughness: float | None) -> Self:
        """How much its prior lets it differ from what is known, in a fit. Returns self.

        In place of the method's: the smaller, the smoother; each term of a sum has its own. None:
        as the method's options say.

        Raises
        ------
        PotentialError
            If it is beyond the range of that name, see ``limits``.
        """
        if roughness is not None:
            roughness = checked_number("roughness", roughness, PotentialError)
        self._roughness = roughness
        return self

    def parameter_prior(self) -> tuple[Array, Array] | None:
        """Mean and standard deviation of each learned parameter before anything is measured.

        Of theta, [parameters] each, as this kind of potential has them by default; infinite where
        nothing is known. None: of none. A fit keeps the mean that it began with.
        """
        return None

    def set_prior(self: Self, prior: Mapping[str, ArrayLike] | None) -> Self:
        """Say how far parameters may be from what they are now. Returns self.

            pair.set_prior({"sigma": 0.01, "epsilon": 0.2})  # nm, kJ/mol

        Each becomes normal about its present value, which the fit weighs against the data; its
        ``parameter_table`` says what these decided.

        Parameters
        ----------
        prior : mapping, or None
            By the name of a parameter, see ``by_name``: its standard deviation, one number or as
            many as it has; infinity where nothing is known. Of the logarithm of a sigma, say, where
            that is the parameter, it is a ratio. In place of what was said before. None: what this
            kind of potential says by default.

        Raises
        ------
        PotentialError
            If there is no such parameter, or no such standard deviation.
        """
        self._own_prior = {} if prior is None else checked_prior(self, prior)
        return self

    @property
    def own_prior(self) -> Mapping[str, tuple[Tensor, Tensor]]:
        """What ``set_prior`` was told: mean and standard deviation by the name of a parameter."""
        return self._own_prior

    def step_size(self, change: Array, temperature: float, contact: float) -> float | None:
        """How large a change of the coefficients is, in kT; a fit keeps it below a bound.

        Particles are found at distances beyond ``contact``, nm; 0 where it is not known. None: only
        frames can tell.
        """
        return None

    def check(self, temperature: float) -> None:
        """Warn where what OpenMM runs no longer follows the potential. ``temperature`` in K."""

    def numbers(self, table: Any = None) -> dict[str, tuple[float, float]]:
        """Physical numbers that follow from the parameters, each with its standard error.

        By what a user calls each. Here: none, as the parameters themselves say all.

        Parameters
        ----------
        table : ParameterTable, optional
            From a fit of this potential; the errors are NaN without.
        """
        return {}

    def free_charges(self, coefficients: Tensor) -> Tensor:
        """What is learned of charges, z, at these coefficients, e, [learned]; here: nothing.

        With a graph to ``coefficients``. Where no energy tells the sign of charges, all of them
        may have the other one. What particles have at z, ``Adapter.charges`` knows.
        """
        return coefficients[:0]

    def pairs(self) -> list[tuple[slice, Any]]:
        """The functions of a distance that it consists of, and where their coefficients are."""
        return []

    def functions(self) -> list[tuple[slice, Any]]:
        """The functions of one coordinate that it consists of, and where their coefficients are.

        Those of a distance between any two particles are ``pairs``.
        """
        return self.pairs()

    def addends(self) -> list[Potential]:
        """What it is a sum of. Here: itself."""
        return [self]

    def form(self) -> dict[str, Any]:
        """What a fit of it depends on besides the learned parameters, as plain data.

        Class, shapes, values of what is fixed, and options: public attributes that are numbers or
        text.
        """
        options = {
            key: value
            for key, value in sorted(vars(self).items())
            if not key.startswith("_") and isinstance(value, str | int | float | None)
        }
        del options["training"]
        if self.roughness is not None:
            options["roughness"] = self.roughness
        fixed = {n: brief(p.numpy(force=True)) for n, p in self._own(learned=False)}
        shapes = {n: list(p.shape) for n, p in self._own(learned=True)}
        return {
            "kind": type(self).__name__,
            "structure": repr(self),
            "options": options,
            "fixed": fixed,
            "learned": shapes,
            "buffers": {n: list(b.shape) for n, b in self.named_buffers()},
        }

    def _own(self, learned: bool) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.named_parameters() if p.requires_grad == learned]

    def __add__(self, other: Potential) -> Sum:
        return Sum([self, other])

    def attach(
        self,
        system: Any,
        atoms: ArrayLike | None = None,
        types: ArrayLike | None = None,
        exclusions: Any = None,
        periodic: bool | None = None,
        temperature: float | None = None,
        backend: str | None = None,
        precision: str | None = None,
        exclude_bonds: int | None = None,
    ) -> Any:
        """Add this potential to an OpenMM System as one Force; a sum, as one for each term.

        Call it before the Context (the Simulation) is made.

        Parameters
        ----------
        system : openmm.System
            The user's System; nothing else in it changes.
        atoms : sequence of int, optional
            Particles that interact through this potential. Default: all.
        types : sequence of int, optional
            Type of each of ``atoms``, 0 .. n_types - 1. Default: all 0.
        exclusions : sequence of (int, int), optional
            Pairs that do not interact, for a pair potential. Default: the exclusions (exceptions)
            of the System's own nonbonded forces, which OpenMM wants to be the same for all; none
            where there is no such force, and a warning where bonded pairs interact then.
        periodic : bool, optional
            Default: as the System's nonbonded forces; periodic if it has none.
        temperature : float or Quantity, optional
            K, for a temperature-dependent potential.
        backend : str, optional
            Which Force. For a pair potential "native", the plugin's SplinePairForce, on the
            platforms Reference, CPU, OpenCL and CUDA, or "table", a CustomNonbondedForce with a
            table, slower and on every platform, with the same energy. Default: native where the
            plugin is there. Take "table" for a platform that OpenMM says lacks
            CalcSplinePairForce when the Context is made, such as HIP, and for a System that is to
            run without the plugin (or see ``portable_system``).

            For a network "python", OpenMM's own PythonForce; "torchforce", the TorchForce of
            openmm-torch, which needs a network that ``torch.jit.script`` compiles;
            "pythontorchforce", its PythonTorchForce; or "auto", the fastest that works here, which
            is logged. Default: "auto". TorchForce runs on Reference, CPU and CUDA, and its System
            cannot be kept in a file.
        precision : "single" or "double", optional
            Of a network in the simulation. Default: that of the platform, once there is a
            StatePoint; before, double.
        exclude_bonds : int, optional
            In place of ``exclusions``: leave out pairs so many bonds apart or fewer, 1 for 1-2
            pairs, 2 for 1-3 too, 3 for 1-4 too, 0 for none. Bonds are those of a HarmonicBondForce,
            CustomBondForce, DrudeForce or CustomCompoundBondForce of two particles, constraints,
            and virtual sites with their particles.

        Returns
        -------
        openmm.Force
            SplinePairForce or openmm.CustomNonbondedForce for a pair potential, that of the
            backend for a network; for a sum, a list of them.

        Raises
        ------
        AttachError
            If an index or type is out of range, the System already has a force of this name, the
            exclusions disagree with those of another nonbonded force, ``exclude_bonds`` finds no
            bond, there is no plugin for the backend, or an argument is not one of this kind of
            potential.
        """
        options = AttachOptions(
            atoms, types, exclusions, periodic, temperature, backend, precision, exclude_bonds
        )
        return adapter_of(self).attach(system, options)


def check_list(terms: Any) -> None:
    """Raise PotentialError where the terms of a sum are not a list of potentials."""
    is_list = isinstance(terms, Sequence) and not isinstance(terms, str)
    wrong = [term for term in terms if not isinstance(term, Potential)] if is_list else [terms]
    if wrong:
        raise PotentialError(
            f"got {type(wrong[0]).__name__}, expected a list of potentials, as [first, second]",
            got=wrong[0],
        )


class Sum(Potential):
    """Several potentials in one System, learned together; ``a + b`` makes one.

    Each term is a Force of its own, on particles of its own: attach the terms one by one, or all
    of them to the same particles by ``attach`` of the sum. The coefficients are those of all
    terms, one after the other.

    Parameters
    ----------
    terms : sequence of Potential
        Sums among them are taken apart.

    Raises
    ------
    PotentialError
        If there is no term, or two of them have one name.
    """

    def __init__(self, terms: Sequence[Potential], name: str | None = None) -> None:
        check_list(terms)
        flat = [part for term in terms for part in term.addends()]
        names = [term.name for term in flat]
        if not flat or len(set(names)) < len(names):
            raise PotentialError(
                f"a sum needs terms with names of their own, got {names or 'none'}: give them "
                "name=, which is that of their Force",
                got=names,
            )
        super().__init__(max(term.n_types for term in flat), name or " + ".join(names))
        self.terms = nn.ModuleList(flat)
        self.energy_is_linear = all(term.energy_is_linear for term in flat)
        self.is_linear = all(term.is_linear for term in flat)
        self.depends_on_temperature = any(term.depends_on_temperature for term in flat)

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Those of all terms, their names behind that of the term."""
        return {
            f"{term.name}.{block}": shape for term in self for block, shape in term.blocks.items()
        }

    def by_name(self) -> dict[str, nn.Parameter]:
        """Those of all terms, their names behind that of the term."""
        return {f"{term.name}.{name}": p for term in self for name, p in term.by_name().items()}

    def kind_of(self, name: str) -> str | None:
        """As its term says."""
        term, _, own = name.partition(".")
        return next((t.kind_of(own) for t in self if t.name == term), None)

    def parameters_of(self, numbers: Mapping[str, Any]) -> Tensor:
        """Of all terms, each by its own names behind that of the term."""
        check_mapping(numbers)
        own = {term.name: dict[str, Any]() for term in self}
        for name, number in numbers.items():
            term, _, rest = str(name).partition(".")
            if term not in own:
                raise PotentialError(
                    f"parameters: got {shown(name)}, expected a name that begins with that of a "
                    f"term, {', '.join(own)}",
                    got=name,
                )
            own[term][rest] = number
        return torch.cat([term.parameters_of(own[term.name]) for term in self])

    def parameter_prior(self) -> tuple[Array, Array] | None:
        """Those of all terms."""
        return prior_of_parts(self)

    def _held_parameters(self) -> list[nn.Parameter]:
        return [p for term in self for p in term._held_parameters()]

    def _hold(self, parameters: set[int]) -> None:
        for term in self:
            term._hold(parameters)

    def __iter__(self) -> Iterator[Potential]:
        return iter(self.terms)  # type: ignore[arg-type]

    def addends(self) -> list[Potential]:
        """The terms."""
        return list(self)

    def coefficients(self, temperature: float | None = None) -> Tensor:
        """c of all terms, flat, [coefficients], with a graph to the parameters."""
        return torch.cat([term.coefficients(temperature) for term in self])

    def slices(self) -> list[slice]:
        """Where the coefficients of each term are."""
        sizes = [sum(map(_size, term.blocks.values())) for term in self]
        ends = np.cumsum(sizes).tolist()
        return [slice(end - n, end) for n, end in zip(sizes, ends, strict=True)]

    def prior_precision(
        self, temperature: float, length: float, roughness: float, n_temperatures: int = 1
    ) -> Array | None:
        """Those of the terms, which know nothing of each other."""
        blocks = self.prior_blocks(temperature, length, roughness, n_temperatures)
        n = self.slices()[-1].stop
        precision = np.zeros((n, n)) if blocks else None
        for where, block in blocks:
            assert precision is not None
            precision[where, where] = block
        return precision

    def prior_blocks(
        self, temperature: float, length: float, roughness: float, n_temperatures: int = 1
    ) -> list[tuple[slice, Array]]:
        """Those of all terms."""
        known = (temperature, length, roughness, n_temperatures)
        return [
            (_within(where, part), block)
            for term, where in zip(self, self.slices(), strict=True)
            for part, block in term.prior_blocks(*known)
        ]

    def step_size(self, change: Array, temperature: float, contact: float) -> float | None:
        """The largest of those terms that know."""
        sizes = [
            term.step_size(change[where], temperature, contact)
            for term, where in zip(self, self.slices(), strict=True)
        ]
        known = [size for size in sizes if size is not None]
        return float(np.max(known)) if known else None  # NaN if any is

    def check(self, temperature: float) -> None:
        """Those of all terms."""
        for term in self:
            term.check(temperature)

    def pairs(self) -> list[tuple[slice, Any]]:
        """Those of all terms."""
        return [
            (_within(where, part), pair)
            for term, where in zip(self, self.slices(), strict=True)
            for part, pair in term.pairs()
        ]

    def functions(self) -> list[tuple[slice, Any]]:
        """Those of all terms."""
        return [
            (_within(where, part), function)
            for term, where in zip(self, self.slices(), strict=True)
            for part, function in term.functions()
        ]

    def numbers(self, table: Any = None) -> dict[str, tuple[float, float]]:
        """Those of all terms, their names behind that of the term."""
        found: dict[str, tuple[float, float]] = {}
        start = 0
        for term in self:
            n = sum(p.numel() for p in term.parameters() if p.requires_grad)
            own = None if table is None else table.part(slice(start, start + n))
            found |= {f"{term.name}.{name}": pair for name, pair in term.numbers(own).items()}
            start += n
        return found

    def free_charges(self, coefficients: Tensor) -> Tensor:
        """Those of all terms."""
        pairs = zip(self, self.slices(), strict=True)
        return torch.cat([term.free_charges(coefficients[where]) for term, where in pairs])

    def form(self) -> dict[str, Any]:
        """The order of the terms, and the form of each by its name."""
        forms = {term.name: term.form() for term in self}
        return {"order": list(forms), "terms": forms}


def _within(whole: slice, part: slice) -> slice:
    return slice(whole.start + part.start, whole.start + part.stop)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
