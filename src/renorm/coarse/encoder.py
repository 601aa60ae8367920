r"""A block-spin rule that is learned: of a block it keeps what tells most of the world around it.

Majority and decimation are chosen by hand. Here the rule is a conditional law $p(h \mid V)$, found by maximising the
mutual information $I(H; E)$ of the coarse value H with the sites E around the block, at a distance.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from renorm.coarse.base import shrunk
from renorm.coarse.surroundings import block_values, surroundings
from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.nn.dense import dense

__all__ = ["BlockEncoder", "fit_encoder"]

_SOFT = 1e-30  # p ln p of a state that is never taken


class BlockEncoder(nn.Module):
    r"""One of k states for each block, by a linear or a small nonlinear function of its sites.

    $$ p(h \mid V) = \frac{e^{f_h(V)}}{\sum_{h'} e^{f_{h'}(V)}}, \qquad
       k = 2:\quad p(h = \pm1 \mid V) = \sigma\big({\pm2}\,\Lambda\cdot V\big) $$

    It is a ``BlockRule``: drawn where a generator is given, else the likeliest state (of equals, the highest). Two
    states are the spins -1 and +1, and without thresholds the rule is odd: it turns over with the field. More states
    are numbered 0, 1, ..., k - 1. Fields may be spins or continuous; these of order 1, with their mean taken off.

    Args:
        size: Sites of a block along each axis.
        dim: Axes of the lattice.
        channels: Of the fields.
        states: k.
        width, layers: Of the network; no hidden layer: $f$ is linear, and $\Lambda$ is the ``filter``.
        thresholds: Whether f has biases. More than two states need them to be of use for spins.
        generator: Source of the first weights; torch's own if not given.

    Raises:
        RecipeError: If a value is out of range.

    Source:
        Koch-Janusz & Ringel 2018, Nature Physics 14, 578 (the linear filter); Goekmen, Ringel, Huber & Koch-Janusz
        2021, arXiv:2101.11633.

    Example: equal weights are the majority rule.
        >>> rule = BlockEncoder(2, dim=1)
        >>> _ = rule.load_state_dict({"network.0.weight": torch.ones(1, 2)})
        >>> rule.coarsen(torch.tensor([[[1.0, 1.0, -1.0, -1.0]]])).tolist()
        [[[1.0, -1.0]]]
    """

    def __init__(
        self,
        size: int = 2,
        *,
        dim: int = 2,
        channels: int = 1,
        states: int = 2,
        width: int = 16,
        layers: int = 0,
        thresholds: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if size < 2:
            raise RecipeError(f"a block needs 2 sites or more on every axis, or nothing is lost, got {size}")
        if not 1 <= dim <= 3:
            raise RecipeError(f"a lattice has one to three axes, got {dim}")
        if states < 2:
            raise RecipeError(f"a coarse value needs 2 states or more (one says nothing), got {states}")
        self.size, self.dim, self.channels, self.states = size, dim, channels, states
        inputs, outputs = channels * size**dim, states if states > 2 else 1
        self.network = dense(inputs, outputs, width=width, layers=layers, odd=not thresholds, generator=generator)

    @property
    def filter(self) -> Float[Tensor, "outputs channel *block"]:
        r"""$\Lambda$, or one filter for each of more than two states.

        Raises:
            RecipeError: If the rule is not linear.
        """
        if len(self.network) > 1:
            raise RecipeError("a rule with hidden layers has no single filter; ask a linear one (layers = 0)")
        (weight, *_) = self.network.parameters()
        return weight.detach().reshape(-1, self.channels, *[self.size] * self.dim)

    @property
    def values(self) -> Float[Tensor, " states"]:
        """What the states are written as in a coarse field."""
        return torch.tensor([-1.0, 1.0]) if self.states == 2 else torch.arange(float(self.states))

    def coarse_lattice(self, lattice: Lattice) -> Lattice:
        """One site of one channel for each block; RecipeError where blocks do not fill the lattice."""
        return shrunk(lattice, self.size, channels=1)

    def log_prob(self, blocks: Float[Tensor, "*lead inner"]) -> Float[Tensor, "*lead states"]:
        r"""$\ln p(h \mid V)$ of blocks as rows, see ``renorm.coarse.surroundings.block_values``, in nats."""
        f = self.network(blocks)
        return (torch.cat([-f, f], -1) if self.states == 2 else f).log_softmax(-1)  # type: ignore[no-any-return]

    def assign(
        self, x: Float[Tensor, "batch channel *sites"], *, generator: torch.Generator | None = None
    ) -> Int64[Tensor, "batch 1 *coarse"]:
        """The number of each block's state, drawn or the likeliest.

        Raises:
            DataError: If fields have other axes or channels, or blocks do not fill the lattice.
        """
        self._check(x)
        with torch.no_grad():
            log_p = self.log_prob(block_values(x, self.size))
        if generator is None:
            last = self.states - 1
            state = last - log_p.flip(-1).argmax(-1)  # of equals the highest, so that a tie of spins is up
        else:
            u = torch.rand(log_p.shape[:-1], generator=generator, dtype=log_p.dtype, device=log_p.device)
            state = (log_p.exp().cumsum(-1)[..., :-1] <= u[..., None]).sum(-1)
        return state.reshape(len(x), 1, *(n // self.size for n in x.shape[2:]))

    def coarsen(
        self, x: Float[Tensor, "batch channel *sites"], *, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch 1 *coarse"]:
        """The coarse field: ``values`` of what ``assign`` gives.

        Raises:
            DataError: If fields have other axes or channels, or blocks do not fill the lattice.
        """
        return self.values.to(x)[self.assign(x, generator=generator)]

    def _check(self, x: Tensor) -> None:
        if x.ndim != self.dim + 2 or x.shape[1] != self.channels:
            raise DataError(
                f"this rule reads fields (batch, {self.channels}, *sites) of {self.dim} axes, got {tuple(x.shape)}"
            )


def fit_encoder(
    encoder: BlockEncoder,
    fields: Float[Tensor, "number channel *sites"],
    *,
    buffer: int = 1,
    reach: int = 2,
    steps: int = 1500,
    batch: int = 2048,
    rate: float = 1e-2,
    width: int = 64,
    layers: int = 2,
    generator: torch.Generator,
) -> Float[Tensor, " steps"]:
    r"""Teach an encoder to keep what its surroundings can tell, in place.

    $$ I(H; E) \ge \max_q\ H(\bar p) + \Big\langle\sum_h p(h \mid V)\ln q(h \mid E)\Big\rangle_{(V, E)},
       \qquad \bar p(h) = \langle p(h \mid V)\rangle $$

    Rule p and predictor q, a dense network, climb the same bound by Adam, its rate falling to 0. The sum over h is
    done, not drawn, so gradients reach the rule without noise from drawing. The information is convex in
    $p(h \mid V)$: what is learned becomes deterministic.

    Args:
        encoder: Starts from the weights that it has.
        fields: On a torus; every block of every field is an example.
        buffer, reach: Which sites are E, see ``renorm.coarse.surroundings.surroundings``.
        steps: Of Adam.
        batch: Examples of a step.
        rate: Largest step of Adam.
        width, layers: Of the predictor.
        generator: Draws the predictor's weights and the batches.

    Returns:
        The bound on each batch, in nats: noisy, and on fields that are being learned from.

    Raises:
        RecipeError: If a value is out of range.
        DataError: If fields do not suit the encoder or the ring, or are not finite.

    Source:
        Barber & Agakov 2003, "The IM algorithm"; Koch-Janusz & Ringel 2018, Nature Physics 14, 578.

    Example: on a chain whose every second site is noise, and the others one and the same, the filter finds these.
        >>> g = torch.Generator().manual_seed(0)
        >>> spins = 2.0 * torch.randint(2, (500, 1, 8), generator=g) - 1
        >>> spins[..., 1::2] = spins[..., 1:2]
        >>> rule = BlockEncoder(2, dim=1, generator=g)
        >>> trace = fit_encoder(rule, spins, buffer=0, reach=1, steps=200, rate=0.05, generator=g)
        >>> noise, told = rule.filter[0, 0].abs()
        >>> bool(told > 4 * noise), bool(trace[-20:].mean() > 0.6)  # of ln 2 = 0.693
        (True, True)
    """
    if min(steps, batch) < 1 or not rate > 0:
        raise RecipeError(f"steps and batch must be >= 1 and rate > 0 (nothing is learned), got {steps, batch, rate}")
    encoder._check(fields)
    if not bool(fields.isfinite().all()):
        raise DataError("fields must be finite (one nan would spoil every weight), got nan or inf")
    inner = block_values(fields, encoder.size).flatten(0, 1)
    outer = surroundings(fields, encoder.size, buffer=buffer, reach=reach).flatten(0, 1)
    predictor = dense(outer.shape[1], encoder.states, width=width, layers=layers, generator=generator).to(outer)
    learned = [*encoder.parameters(), *predictor.parameters()]
    optimiser = torch.optim.Adam(learned, lr=rate)
    trace = torch.empty(steps)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        rows = torch.randint(len(inner), (batch,), generator=generator, device=generator.device).to(inner.device)
        bound = _bound(encoder.log_prob(inner[rows]).exp(), predictor(outer[rows]).log_softmax(-1))
        gradients = torch.autograd.grad(-bound, learned)
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        trace[step] = bound.detach()
    return trace


def _bound(p: Float[Tensor, "batch states"], log_q: Float[Tensor, "batch states"]) -> Tensor:
    mean = p.mean(0)
    return -(mean * (mean + _SOFT).log()).sum() + (p * log_q).sum(1).mean()
