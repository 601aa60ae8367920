"""A small fully connected network: a function of a few numbers that lie on no lattice."""

import itertools

from torch import Generator, nn

from renorm.nn.initial import xavier
from renorm.spec import require

__all__ = ["dense"]


def dense(
    inputs: int,
    outputs: int,
    *,
    width: int = 64,
    layers: int = 2,
    odd: bool = False,
    still: bool = False,
    generator: Generator | None = None,
) -> nn.Sequential:
    r"""Linear layers with a bend between each two; a linear map where there is no hidden layer.

    $$ f(x) = W_n\,\rho(W_{n-1}\cdots\rho(W_1 x + b_1)\cdots) + b_n $$

    Args:
        inputs, outputs: Numbers that go in and come out.
        width: Of a hidden layer.
        layers: Hidden layers, 0 or more.
        odd: Whether $f(-x) = -f(x)$: $\rho$ is tanh and there are no biases; else $\rho$ is SiLU.
        still: Whether the output is 0 at first: the last layer begins at nothing.
        generator: Source of the first weights; torch's own if not given.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> import torch
        >>> net = dense(3, 1, width=8, odd=True, generator=torch.Generator().manual_seed(0))
        >>> bool((net(torch.ones(1, 3)) == -net(-torch.ones(1, 3))).all())
        True
    """
    require(min(inputs, outputs, width) >= 1, "inputs, outputs and width must be >= 1", (inputs, outputs, width))
    require(layers >= 0, "layers must be >= 0 (0: a linear map)", layers)
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise([inputs, *[width] * layers, outputs]):
        parts += [nn.Linear(before, after, bias=not odd), nn.Tanh() if odd else nn.SiLU()]
    network = nn.Sequential(*parts[:-1])
    xavier(network, generator)
    if still:
        for parameter in network[-1].parameters():
            nn.init.zeros_(parameter)
    return network
