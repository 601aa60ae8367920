r"""Laying one chain onto another: the best rotation and translation, and how far the residues then are apart.

Only proper rotations count: a mirror image of a chain is another chain. Residues are matched by their place.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from renorm.errors import DataError

__all__ = ["Superposition", "matched", "proper_rotation", "rmsd", "superpose"]


class Superposition(NamedTuple):
    """A rotation and a translation that lay one chain onto another (float64)."""

    rotation: Float64[Tensor, "*batch 3 3"]
    translation: Float64[Tensor, "*batch 3"]

    def move(self, x: Float[Tensor, "*chains n 3"]) -> Float64[Tensor, "*moved n 3"]:
        r"""The chain in its new place, $R x_i + t$.

        Example:
            >>> turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double()
            >>> Superposition(turn, torch.tensor([0.0, 0.0, 5.0]).double()).move(torch.tensor([[1.0, 0.0, 0.0]]))
            tensor([[0., 1., 5.]], dtype=torch.float64)
        """
        return x.detach().cpu().double() @ self.rotation.mT + self.translation[..., None, :]


def matched(
    x: Tensor, y: Tensor, mask: Bool[Tensor, "..."] | None = None
) -> tuple[Float64[Tensor, "*batch n 3"], Float64[Tensor, "*batch n 3"], Bool[Tensor, "*batch n"]]:
    """Both chains in float64 on the CPU, and which residues count; those that do not stand at the origin.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        y: The chains to compare with, as many, or one.
        mask: Residues that count; not given: all.

    Raises:
        DataError: If a chain is not (n, 3) or (batch, n, 3), the two differ in their number of residues, no residue
            counts, or one that counts is not finite.

    Example:
        >>> x, y, counts = matched(torch.ones(2, 3), torch.ones(2, 3), torch.tensor([True, False]))
        >>> x.sum(), counts
        (tensor(3., dtype=torch.float64), tensor([ True, False]))
    """
    for one in (x, y):
        if one.dim() not in (2, 3) or one.shape[-1] != 3 or not one.numel():
            raise DataError(f"a chain needs a place in angstrom for each residue, (n, 3), got {tuple(one.shape)}")
    if x.shape[-2] != y.shape[-2]:
        raise DataError(
            f"residues are matched by their place, so both chains need as many, got {x.shape[-2]} and {y.shape[-2]}"
        )
    counts = torch.ones(x.shape[-2], dtype=torch.bool) if mask is None else mask.cpu()
    x, y = torch.broadcast_tensors(x.detach().cpu().double(), y.detach().cpu().double())
    counts = counts.expand(x.shape[:-1])
    if not counts.any(-1).all():
        raise DataError("at least 1 residue of every chain must count, got a mask without one")
    if not (x[counts].isfinite().all() and y[counts].isfinite().all()):
        raise DataError("places of residues must be finite (mask those that are not known), got nan or inf")
    return x.where(counts[..., None], 0.0), y.where(counts[..., None], 0.0), counts


def proper_rotation(covariance: Float64[Tensor, "*batch 3 3"]) -> Float64[Tensor, "*batch 3 3"]:
    r"""The rotation $R$ that makes $\sum_i w_i\, y_i \cdot R x_i$ largest, given $H = \sum_i w_i\, x_i y_i^T$.

    $$ H = U S V^T, \qquad R = V \,\mathrm{diag}(1, 1, \det V U^T)\, U^T $$

    The last sign gives up the least of the three singular values where the best orthogonal matrix is a mirror.

    Args:
        covariance: $H$, in square angstrom or any unit.

    Returns:
        A matrix of determinant 1.

    Source:
        Kabsch 1978, "A discussion of the solution for the best rotation to relate two sets of vectors".

    Example:
        >>> proper_rotation(torch.diag(torch.tensor([3.0, 2.0, -1.0])).double()) + 0
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]], dtype=torch.float64)
    """
    u, _, vh = torch.linalg.svd(covariance)
    last = torch.ones_like(u[..., 0])
    last[..., 2] = (u.det() * vh.det()).sign()
    return (vh.mT * last[..., None, :]) @ u.mT


def superpose(
    x: Float[Tensor, "*#batch n 3"],
    y: Float[Tensor, "*#batch n 3"],
    *,
    weights: Float[Tensor, "*#batch n"] | None = None,
) -> Superposition:
    r"""The proper rotation and the translation that lay ``x`` onto ``y`` with the least weighted squared distance.

    $$ (R, t) = \arg\min_{R \in SO(3),\, t} \sum_i w_i\, |R x_i + t - y_i|^2, \qquad t = \bar y - R \bar x $$

    with weighted means $\bar x, \bar y$, and $R$ by `proper_rotation`. A batch of chains is laid onto as many chains,
    or onto one. Where the residues lie on a line, or are fewer than three, several rotations are best and one of them
    is given.

    Args:
        x: Places of the chain that moves, in angstrom.
        y: Places of the chain that stays.
        weights: What each residue counts, not negative; not given: all the same. A residue of weight 0 may be
            anywhere, also nan.

    Returns:
        Rotation and translation; ``move`` applies them.

    Raises:
        DataError: If the chains do not match, a weight is negative or not finite, or all are 0.

    Example:
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
        >>> y = x[:, [1, 2, 0]] + 7  # a third of a turn, and a shift
        >>> found = superpose(x, y)
        >>> (found.rotation.round(decimals=9) + 0).tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        >>> bool((found.move(x) - y).abs().max() < 1e-12)
        True
    """
    if weights is None:
        x, y, counts = matched(x, y)
        w = counts.double()
    else:
        if not (weights.isfinite().all() and (weights >= 0).all()):
            raise DataError("weights of residues must be finite and >= 0 (they weigh squared distances)")
        x, y, counts = matched(x, y, weights > 0)
        w = weights.detach().cpu().double().expand(counts.shape)
    share = (w / w.sum(-1, keepdim=True))[..., None]
    centre_x, centre_y = ((share * one).sum(-2, keepdim=True) for one in (x, y))
    rotation = proper_rotation((share * (x - centre_x)).mT @ (y - centre_y))
    return Superposition(rotation, (centre_y - centre_x @ rotation.mT)[..., 0, :])


def rmsd(
    x: Float[Tensor, "*#batch n 3"], y: Float[Tensor, "*#batch n 3"], *, mask: Bool[Tensor, "*#batch n"] | None = None
) -> Float64[Tensor, "*batch"]:
    r"""Root mean squared distance of matched residues after the best superposition, in angstrom.

    $$ \mathrm{rmsd} = \min_{R \in SO(3),\, t} \Big( \frac1n \sum_i |R x_i + t - y_i|^2 \Big)^{1/2} $$

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        y: Places of the chains to compare with, as many, or one.
        mask: Residues that count; not given: all.

    Returns:
        One distance a chain, in angstrom.

    Raises:
        DataError: If the chains do not match, or no residue of one counts.

    Invariant:
        Rotations and shifts of either chain change nothing; a mirror image is not at 0.

    Example:
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
        >>> round(float(rmsd(x, 2 * x)), 6)  # each end is 1 too far out
        1.0
    """
    x, y, counts = matched(x, y, mask)
    squares = (superpose(x, y, weights=counts.double()).move(x) - y).square().sum(-1)
    return ((squares * counts).sum(-1) / counts.sum(-1)).sqrt()
