"""What each level of a cascade encodes: what it sees, what it moves, and what comes of swapping it."""

import torch
from jaxtyping import Float
from torch import Tensor

from renorm.cascade.cascade import Cascade
from renorm.errors import DataError
from renorm.model import Pyramid

__all__ = ["causal_cone", "encoded", "receptive_field", "swapped"]


def receptive_field(
    model: Cascade, x: Float[Tensor, "batch channel *sites"], level: int, place: tuple[int, ...]
) -> Float[Tensor, "*sites"]:
    r"""How much a coarse number is moved by each fine site, $\langle(\partial\phi_{l,p}/\partial\phi_{0,i})^2\rangle$.

    Args:
        model: Its steps are read.
        x: Fields to average over; one is enough where all steps are linear.
        level: l >= 1.
        place: p, (channel, \*site) of the coarse field.

    Returns:
        One number for each fine site, summed over channels.

    Raises:
        DataError: If there is no such level or place.

    Example: a block of Haar's is seen evenly.
        >>> from renorm.cascade.spec import CascadeSpec
        >>> from renorm.lattice import Lattice
        >>> model = Cascade.of(CascadeSpec(coarse="haar"), Lattice((4,), boundary="periodic"))
        >>> [round(v, 3) for v in receptive_field(model, torch.zeros(1, 1, 4), 1, (0, 1)).tolist()]
        [0.0, 0.0, 0.5, 0.5]
    """
    if not 1 <= level <= len(model.steps):
        raise DataError(f"level must be 1 ... {len(model.steps)}, got {level}")
    leaf = x.detach().requires_grad_()
    number = _number(place, model.lattices[level].event_shape)
    (slope,) = torch.autograd.grad(model.coarsen(leaf, level).flatten(1)[:, number].sum(), leaf)
    return slope.square().mean(0).sum(0)


def causal_cone(
    model: Cascade, x: Float[Tensor, "batch channel *sites"], level: int, place: tuple[int, ...]
) -> Float[Tensor, "*sites"]:
    r"""How much one detail moves each fine site, all else held.

    $$ \langle(\partial\phi_{0,i}/\partial y_{l,p})^2\rangle $$

    Args:
        model: Its steps are read.
        x: Fields to average over.
        level: l >= 0, of the step whose detail it is.
        place: p, (detail, \*site).

    Returns:
        One number for each fine site, summed over channels.

    Raises:
        DataError: If there is no such step or place.

    Example:
        >>> from renorm.cascade.spec import CascadeSpec
        >>> from renorm.lattice import Lattice
        >>> model = Cascade.of(CascadeSpec(coarse="haar"), Lattice((4,), boundary="periodic"))
        >>> [round(v, 3) for v in causal_cone(model, torch.zeros(1, 1, 4), 1, (0, 0)).tolist()]
        [0.25, 0.25, 0.25, 0.25]
    """
    pyramid = model.encode(x.detach())
    which = _which(model, level)
    detail = pyramid.details[which].detach()
    push = detail.new_zeros(len(detail), detail[0].numel())
    push[:, _number(place, tuple(detail.shape[1:]))] = 1.0

    def decoded(value: Tensor) -> Tensor:
        return model.decode(_with(pyramid, which, value))

    _, moved = torch.autograd.functional.jvp(decoded, detail, push.reshape(detail.shape))
    return moved.detach().square().mean(0).sum(0)  # type: ignore[no-any-return]


def swapped(
    model: Cascade, x: Float[Tensor, "batch channel *sites"], other: Float[Tensor, "batch channel *sites"], level: int
) -> Float[Tensor, "batch channel *sites"]:
    """Fields that have the detail of other fields at one level, and their own at all others.

    Args:
        model: Its steps are read.
        x, other: As many fields of each.
        level: Of the step whose detail is swapped; as many as there are steps: the coarsest field.

    Raises:
        DataError: If there is no such step.

    Example:
        >>> from renorm.cascade.spec import CascadeSpec
        >>> from renorm.lattice import Lattice
        >>> model = Cascade.of(CascadeSpec(coarse="haar"), Lattice((2,), boundary="periodic"))
        >>> x, other = torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[10.0, 20.0]]])
        >>> swapped(model, x, other, 0).round(decimals=3).tolist()  # their difference, our mean
        [[[-3.0, 7.0]]]
    """
    mine, theirs = model.encode(x), model.encode(other)
    if level == len(model.steps):
        return model.decode(Pyramid(theirs.coarse, mine.details))
    which = _which(model, level)
    return model.decode(_with(mine, which, theirs.details[which]))


def encoded(model: Cascade, x: Float[Tensor, "batch channel *sites"]) -> dict[str, Tensor] | None:
    """What a number in the middle of each level sees and moves, and a field with each level's detail of another.

    Args:
        model: Its steps are read.
        x: Two fields or more; what is seen and moved is averaged over all, the first two are swapped.

    Returns:
        ``sees`` and ``moves`` (levels, sites), of coarse fields and of details, finest first; ``field`` and ``other``
        (sites) and ``swapped`` (levels + 1, sites), the last with the other's coarsest field, are means over channels.
        None where a rule lets no gradient pass, as a majority of spins.

    Raises:
        DataError: If there is one field, or none.

    Example:
        >>> from renorm.cascade.spec import CascadeSpec
        >>> from renorm.lattice import Lattice
        >>> model = Cascade.of(CascadeSpec(coarse="haar"), Lattice((4,), boundary="periodic"))
        >>> found = encoded(model, torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0)))
        >>> {name: tuple(values.shape) for name, values in found.items()}
        {'sees': (2, 4), 'moves': (2, 4), 'field': (4,), 'other': (4,), 'swapped': (3, 4)}
    """
    if len(x) < 2:
        raise DataError(f"a detail is swapped between two fields, got {len(x)}")
    leaf = x.detach().requires_grad_()
    if not all(model.coarsen(leaf, level).requires_grad for level in range(1, len(model.lattices))):
        return None
    middles = [_middle(lattice.event_shape) for lattice in model.lattices]
    sees = [receptive_field(model, x, level, middles[level]) for level in range(1, len(middles))]
    details = model.encode(x[:1]).details[::-1]  # finest first
    moves = [causal_cone(model, x, level, _middle(tuple(each.shape[1:]))) for level, each in enumerate(details)]
    with torch.no_grad():
        changed = [swapped(model, x[:1], x[1:2], level)[0].mean(0) for level in range(len(model.steps) + 1)]
    maps = {"sees": torch.stack(sees), "moves": torch.stack(moves)}
    return maps | {"field": x[0].mean(0), "other": x[1].mean(0), "swapped": torch.stack(changed)}


def _middle(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A place in the middle of a field's first channel."""
    return (0, *(side // 2 for side in shape[1:]))


def _which(model: Cascade, level: int) -> int:
    """Place of a step's detail in a pyramid, which stands coarse to fine."""
    if not 0 <= level < len(model.steps):
        raise DataError(f"level must be 0 ... {len(model.steps) - 1}, that of a step, got {level}")
    return len(model.steps) - 1 - level


def _with(pyramid: Pyramid, which: int, detail: Tensor) -> Pyramid:
    details = list(pyramid.details)
    details[which] = detail
    return Pyramid(pyramid.coarse, tuple(details))


def _number(place: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Of a place among all of them, the last axis running fastest."""
    if len(place) != len(shape) or not all(0 <= i < n for i, n in zip(place, shape, strict=True)):
        raise DataError(f"a place is {len(shape)} numbers below {shape}, got {place}")
    number = 0
    for i, n in zip(place, shape, strict=True):
        number = number * n + i
    return number
