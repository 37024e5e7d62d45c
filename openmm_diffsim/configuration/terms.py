"""What is learned: [potential], or each [[potential]], of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..errors import ConfigurationError, PotentialError
from ..potentials import Potential
from .section import Section

Self = TypeVar("Self", bound="TermSection")

if TYPE_CHECKING:
    from .prepared import Known, Prepared


@dataclass(frozen=True, kw_only=True)
class TermSection:
    """What every term has; a subclass knows how to make it.

    ``key`` is that of its table, for messages.
    """

    kind: str
    key: str = "potential"
    name: str | None = None  # of the Force, and of its files; None: that of its class
    prior: Mapping[str, Any] = field(default_factory=dict)  # standard deviations by name
    roughness: float | None = None  # None: the method's
    learn: tuple[Any, ...] | None = None  # names of parameters, or pairs of types; None: all

    initial: str = ""  # where it starts
    attached: ClassVar[int] = 0
    """Terms are attached in this order: a pair potential leaves out what others bond."""

    @property
    def needs_structure(self) -> list[str]:
        """Keys of what is not given, and would have to be found from a g(r)."""
        return []

    @property
    def reach(self) -> float | None:
        """How far it acts between any two particles, nm; None: that is not of the box."""
        return None

    def of_fit(self: Self, first_knot: float | None) -> Self:
        """The same for a potential that was learned: nothing has to be guessed.

        ``first_knot`` is the ``r_min``, nm, that it was found to have.
        """
        return self

    def first_guess(self, known: Known) -> Potential:
        """As it begins."""
        raise NotImplementedError

    def attach(self, potential: Any, place: Prepared) -> None:
        """Put it into the System of a state point."""
        raise NotImplementedError

    def build(self, known: Known) -> Potential:
        """The first guess, with its name and with what is known of it beforehand.

        Raises
        ------
        ConfigurationError
            If there are no such parameters.
        """
        potential = self.first_guess(known)
        if self.name is not None:
            potential.name = self.name
        for key, value in (("learn", self.learn), ("roughness", self.roughness)):
            self._tell(key, potential, value)
        if self.prior:
            self._tell("prior", potential, self.prior)
        return potential

    def _tell(self, key: str, potential: Potential, value: Any) -> None:
        told = {"learn": "learn_only", "roughness": "set_roughness", "prior": "set_prior"}[key]
        try:
            getattr(potential, told)(value)
        except PotentialError as error:
            full = f"{self.key}.{key}"
            raise ConfigurationError(f"{full}: {error}", key=full, got=value) from error


def common(section: Section, names: Sequence[str]) -> dict[str, Any]:
    """What every term may say; ``names`` are those of the types of particles."""
    return {
        "key": section.name,
        "name": section.text("name", None),
        "prior": _prior(section),
        "roughness": section.number("roughness", None),
        "learn": _learn(section, names),
    }


def _prior(section: Section) -> dict[str, Any]:
    """Standard deviations: one number of all of a name, or a list."""
    own = section.optional_section("prior")
    if own is None:
        return {}
    return {name: own.deviations(name) for name in own.raw}


def _learn(section: Section, names: Sequence[str]) -> tuple[Any, ...] | None:
    """Names of parameters, or pairs of types."""
    given = section.raw.get("learn")
    if isinstance(given, list) and given and all(isinstance(v, str) for v in given):
        return section.texts("learn")
    return section.pairs_of("learn", names)


Reader = Callable[[Section, Sequence[str]], TermSection]


def read_terms(
    top: Section, readers: Mapping[str, Reader], names: Sequence[str]
) -> tuple[TermSection, ...]:
    """[potential] or [[potential]]: each by its kind; several have names of their own.

    Raises
    ------
    ConfigurationError
        If a value cannot be, or two have one name.
    """
    if not isinstance(top.raw.get("potential"), list):
        return (_read(top.section("potential"), readers, names),)
    sections = top.sections("potential")
    if not sections:
        raise top.error("potential", "got none, expected one [[potential]] at least")
    if len(sections) == 1:
        return (_read(sections[0], readers, names),)
    kinds = [section.raw.get("kind") for section in sections]
    given = [section.raw.get("name") for section in sections]
    terms = []
    for k, section in enumerate(sections):
        before = sum(kind == kinds[k] for kind in kinds[:k])
        unnamed = f"{kinds[k]}{before + 1 if before else ''}"
        named = section.within(section.name, {"name": unnamed, **section.raw})
        terms.append(_read(named, readers, names))
        if given.count(given[k]) > 1 and given[k] is not None:
            raise section.error("name", f"got {given[k]!r} twice, expected a name of its own")
    return tuple(terms)


def _read(section: Section, readers: Mapping[str, Reader], names: Sequence[str]) -> TermSection:
    kind = section.choice("kind", tuple(readers))
    made = readers[kind](section, names)
    section.finish()
    return made
