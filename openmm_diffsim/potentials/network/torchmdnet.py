"""Graph networks of the library torchmd-net, ready to be learned."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import PotentialError
from .neighbors import NeighborPairs

ARCHITECTURES = ("equivariant-transformer", "graph-network")
_ANGSTROM = 10.0  # in a nanometre
_EMBEDDING = 0.01  # of the library's: what a particle is must not drown what it sees


class TorchMDNet(nn.Module):
    """U(x) = sum over particles of MLP(features of the particle), from a network of torchmd-net.

    Features are those of the equivariant transformer (Thölke and De Fabritiis, ICLR 2022,
    arXiv:2202.02541), whose messages have a direction, or of the graph network (Majewski et al.,
    Nat. Commun. 14, 5739 (2023), after SchNet), whose messages depend on distances alone. Both
    are invariant under translation, rotation and permutation, and their forces are continuous where
    a neighbour crosses the cutoff. Pair by pair the messages reach the cutoff, the features
    ``layers`` times as far.

    The network starts near zero energy. A particle without neighbours has an energy of its own, a
    constant of its type.

    Needs torchmd-net: ``pip install "openmm-diffsim[networks]"``. Wrap it in a
    ``NetworkPotential``, with a repulsive prior: where no pair is ever seen, nothing keeps a
    network from attracting.

    Parameters
    ----------
    cutoff : float
        nm.
    n_types : int
        Number of particle types.
    architecture : "equivariant-transformer" or "graph-network"
    hidden : int
        Features of each particle; for the transformer a multiple of ``heads``.
    layers : int
        Rounds of messages.
    rbf : int
        Radial basis functions of the distance, exp(-(r - mu)^2 / (2 w^2)), fixed: mu between 0 and
        the cutoff, w their spacing.
    heads : int
        Of the transformer's attention.
    seed : int
        Of the initial weights. Torch's own random state is left alone.
    dtype : torch.dtype
        float64 or float32.

    Raises
    ------
    PotentialError
        If torchmd-net is not installed, or an argument is out of range.
    """

    def __init__(
        self,
        cutoff: float,
        n_types: int = 1,
        *,
        architecture: str = "equivariant-transformer",
        hidden: int = 16,
        layers: int = 2,
        rbf: int = 16,
        heads: int = 1,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        sizes = {"n_types": n_types, "hidden": hidden, "layers": layers, "rbf": rbf, "heads": heads}
        for name, size in sizes.items():
            if size < (2 if name == "rbf" else 1):
                raise PotentialError(f"{name}: expected a positive number, got {size}")
        self.cutoff = cutoff
        self.n_types = n_types
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.representation = _representation(architecture, cutoff, n_types, sizes)
            first, last = nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
        with torch.no_grad():
            last.weight.mul_(0.01)
            last.bias.zero_()
        self.head = nn.Sequential(first, nn.SiLU(), last)
        self.to(dtype)

    def forward(self, positions: Tensor, box: Tensor | None, types: Tensor) -> Tensor:
        """Energy, kJ/mol, of positions [particles, 3] and box [3, 3] in nm, types [particles]."""
        boxes = None if box is None else box[None]
        return self.energies(positions[None], boxes, types)[0]

    @torch.jit.export
    def energies(self, positions: Tensor, boxes: Tensor | None, types: Tensor) -> Tensor:
        """Energy of each frame, kJ/mol, [frames]; boxes [frames, 3, 3], the same types in all."""
        frames, n = positions.shape[0], positions.shape[1]
        frame = torch.arange(frames, device=positions.device).repeat_interleave(n)
        features = self.representation(
            types.repeat(frames), positions.reshape(-1, 3), frame, boxes
        )[0]
        return self.head(features).reshape(frames, n).sum(dim=1)


class Edges(nn.Module):
    """The edges of a graph of particles, where torchmd-net has its own neighbour search.

    Parameters
    ----------
    cutoff : float
        nm.
    loops : bool
        An edge from each particle to itself too?
    """

    def __init__(self, cutoff: float, loops: bool) -> None:
        super().__init__()
        self.neighbors = NeighborPairs(cutoff)
        self.loops = loops
        self.unit = _ANGSTROM

    def forward(
        self, positions: Tensor, frame: Tensor, boxes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Sender and receiver [2, edges], distance in angstroms [edges], direction [edges, 3].

        Of positions [frames * particles, 3] in nm, the index of the frame of each, and boxes
        [frames, 3, 3]. The direction of a loop is zero.
        """
        frames = int(frame[-1]) + 1
        i, j, vectors = self.neighbors.batch(positions.reshape(frames, -1, 3), boxes)
        distance = torch.linalg.vector_norm(vectors, dim=1)
        # The library normalises in place, but not the vector from a particle to its own image.
        direction = vectors / distance.clamp(min=1e-9)[:, None]  # zero to one in the same place
        edges = torch.stack([j, i])
        if self.loops:
            every = torch.arange(positions.shape[0], device=positions.device)
            edges = torch.cat([edges, every.expand(2, -1)], dim=1)
            distance = torch.cat([distance, torch.zeros_like(positions[:, 0])])
            direction = torch.cat([direction, torch.zeros_like(positions)])
        return edges, self.unit * distance, direction


def _representation(
    architecture: str, cutoff: float, n_types: int, sizes: dict[str, int]
) -> nn.Module:
    """The library's network, with our edges; it works in angstroms."""
    arguments: dict[str, Any] = {
        "hidden_channels": sizes["hidden"],
        "num_layers": sizes["layers"],
        "num_rbf": sizes["rbf"],
        "rbf_type": "gauss",
        "trainable_rbf": False,
        "neighbor_embedding": False,
        "cutoff_upper": _ANGSTROM * cutoff,
        "max_z": n_types,
    }
    edges = Edges(cutoff, loops=architecture == "equivariant-transformer")
    transformer, graph = _library()
    if architecture == "equivariant-transformer":
        if sizes["hidden"] % sizes["heads"]:
            raise PotentialError(
                f"hidden: expected a multiple of heads = {sizes['heads']}, got {sizes['hidden']}"
            )
        # Without vector_cutoff the energy jumps where a neighbour crosses the cutoff.
        network = transformer(**arguments, num_heads=sizes["heads"], vector_cutoff=True)
        with torch.no_grad():  # messages are normalised, and add to the embedding
            network.get_parameter("embedding.weight").mul_(_EMBEDDING)
    elif architecture == "graph-network":
        network = graph(**arguments, num_filters=sizes["hidden"])
    else:
        raise PotentialError(
            f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {architecture!r}"
        )
    network.distance = edges
    return network


def _library() -> tuple[type[nn.Module], type[nn.Module]]:
    """Transformer and graph network of torchmd-net."""
    try:
        with _silence():  # warp, which we do not use, says what devices it has and has not
            from torchmdnet.models.torchmd_et import TorchMD_ET
            from torchmdnet.models.torchmd_gn import TorchMD_GN
    except ImportError as error:
        raise PotentialError(
            f'TorchMDNet needs torchmd-net ({error}): pip install "openmm-diffsim[networks]"'
        ) from error
    return TorchMD_ET, TorchMD_GN


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing is printed, nor written to standard error by compiled code."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
