r"""The shape of a chain along itself: bonds, angles of three sites, dihedrals of four, radius of gyration, clashes.

Consecutive C-alpha atoms of a protein are 3.80 A apart (2.9 A across a cis peptide bond). Angles are in radians. What
touches a residue that does not count is nan, so entries keep their place.
"""

import math

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from renorm.errors import DataError

__all__ = [
    "bond_lengths",
    "clashes",
    "counted",
    "handedness",
    "pseudo_angles",
    "pseudo_dihedrals",
    "radius_of_gyration",
]

HELIX = (20 * math.pi / 180, 80 * math.pi / 180)
"""Dihedrals near a helix, of either hand: that of an alpha helix is 50 degrees."""


def counted(
    x: Tensor, mask: Bool[Tensor, "..."] | None = None, *, least: int = 1
) -> tuple[Float64[Tensor, "*batch n 3"], Bool[Tensor, "*batch n"]]:
    """The chain in float64 on the CPU, nan where a residue does not count, and which residues do.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        mask: Residues that count; not given: all.
        least: Residues that a chain must have.

    Raises:
        DataError: If the chain is not (n, 3) or (batch, n, 3), has fewer than ``least`` residues, or one that counts
            is not finite.

    Example:
        >>> counted(torch.zeros(2, 3), torch.tensor([True, False]))[0][:, 0]
        tensor([0., nan], dtype=torch.float64)
    """
    if x.dim() not in (2, 3) or x.shape[-1] != 3 or x.shape[-2] < least:
        raise DataError(
            f"a chain needs a place in angstrom for each residue, (n, 3), here with n >= {least}, got {tuple(x.shape)}"
        )
    counts = torch.ones(x.shape[:-1], dtype=torch.bool) if mask is None else mask.cpu()
    x = x.detach().cpu().double()
    if not x[counts].isfinite().all():
        raise DataError("places of residues must be finite (mask those that are not known), got nan or inf")
    return x.where(counts[..., None], torch.nan), counts


def bond_lengths(
    x: Float[Tensor, "*batch n 3"], *, mask: Bool[Tensor, "*batch n"] | None = None
) -> Float64[Tensor, "*batch bonds"]:
    r"""Distances of consecutive residues in angstrom, $b_i = |x_{i+1} - x_i|$.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        mask: Residues that count; not given: all.

    Returns:
        A length for each pair of neighbours.

    Raises:
        DataError: If the chain has fewer than 2 residues, another shape, or one that counts is not finite.

    Example:
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [3.0, 4.0, 2.0]])
        >>> bond_lengths(x), bond_lengths(x, mask=torch.tensor([True, True, False]))
        (tensor([5., 2.], dtype=torch.float64), tensor([5., nan], dtype=torch.float64))
    """
    x, _ = counted(x, mask, least=2)
    return x.diff(dim=-2).norm(dim=-1)


def pseudo_angles(
    x: Float[Tensor, "*batch n 3"], *, mask: Bool[Tensor, "*batch n"] | None = None
) -> Float64[Tensor, "*batch angles"]:
    r"""Angles at the middle of three consecutive residues, in radians from 0 (folded back) to $\pi$ (straight).

    $$ \theta_i = \operatorname{atan2}(|u \times v|,\; u \cdot v), \qquad
       u = x_i - x_{i+1}, \quad v = x_{i+2} - x_{i+1} $$

    An alpha helix has 1.6 (91 degrees), a strand about 2.1.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        mask: Residues that count; not given: all.

    Returns:
        An angle for each run of three.

    Raises:
        DataError: If the chain has fewer than 3 residues, another shape, or one that counts is not finite.

    Example:
        >>> x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 5.0, 0.0]])
        >>> pseudo_angles(x) / torch.pi
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    x, _ = counted(x, mask, least=3)
    bonds = x.diff(dim=-2)
    u, v = -bonds[..., :-1, :], bonds[..., 1:, :]
    return torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1))


def pseudo_dihedrals(
    x: Float[Tensor, "*batch n 3"], *, mask: Bool[Tensor, "*batch n"] | None = None
) -> Float64[Tensor, "*batch dihedrals"]:
    r"""Dihedral angles of four consecutive residues, in radians in $(-\pi, \pi]$; 0 is cis.

    $$ \tau_i = \operatorname{atan2}\big(|b_2|\, b_1 \cdot (b_2 \times b_3),\; (b_1 \times b_2) \cdot (b_2 \times b_3)
       \big), \qquad b_k = x_{i+k} - x_{i+k-1} $$

    The sign is that of IUPAC: positive where the far bond is turned clockwise from the near one. An alpha helix has
    0.87 (50 degrees), a strand about $-2.97$ (190 degrees). A mirror changes every sign.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        mask: Residues that count; not given: all.

    Returns:
        An angle for each run of four.

    Raises:
        DataError: If the chain has fewer than 4 residues, another shape, or one that counts is not finite.

    Example:
        >>> x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        >>> float(pseudo_dihedrals(x)) / torch.pi, float(pseudo_dihedrals(-x)) / torch.pi
        (0.5, -0.5)
    """
    x, _ = counted(x, mask, least=4)
    bonds = x.diff(dim=-2)
    first, second, third = bonds[..., :-2, :], bonds[..., 1:-1, :], bonds[..., 2:, :]
    across = torch.linalg.cross(second, third)
    up = second.norm(dim=-1) * (first * across).sum(-1)
    return torch.atan2(up, (torch.linalg.cross(first, second) * across).sum(-1))


def radius_of_gyration(
    x: Float[Tensor, "*batch n 3"], *, mask: Bool[Tensor, "*batch n"] | None = None
) -> Float64[Tensor, "*batch"]:
    r"""Root mean squared distance of the residues from their centre, in angstrom.

    $$ R_g = \Big( \frac1n \sum_i |x_i - \bar x|^2 \Big)^{1/2} $$

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        mask: Residues that count; not given: all.

    Returns:
        One radius a chain.

    Raises:
        DataError: If the chain has another shape, or a residue that counts is not finite. Without a residue that
            counts the radius is nan.

    Example:
        >>> radius_of_gyration(torch.tensor([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0]]))
        tensor(3., dtype=torch.float64)
    """
    x, counts = counted(x, mask)
    centre = x.nanmean(-2, keepdim=True)
    return ((x - centre).square().sum(-1).nansum(-1) / counts.sum(-1)).sqrt()


def clashes(
    x: Float[Tensor, "*batch n 3"],
    *,
    mask: Bool[Tensor, "*batch n"] | None = None,
    cutoff: float = 3.6,
    separation: int = 3,
) -> Float64[Tensor, "*batch"]:
    r"""Pairs of residues that are no neighbours and yet too near, for each residue.

    $$ \frac1n \, \# \{ i < j :\; j - i \ge 3,\; |x_i - x_j| < 3.6 \text{ A} \} $$

    Measured crystal structures have about 0.0005 (685 unbroken chains of 41 to 256 residues: 0.00055; 0.00002 at 3.0 A,
    0.0074 at 4.0 A, where it is no clash any more).

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        mask: Residues that count; not given: all.
        cutoff: What is too near, in angstrom.
        separation: How far apart along the chain a pair has to be.

    Returns:
        One number a chain.

    Raises:
        DataError: If the chain has another shape, a residue that counts is not finite, or ``separation`` is below 1.
            Without a residue that counts the number is nan.

    Example:
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [3.8, 0.0, 0.0], [3.8, 3.8, 0.0], [0.0, 3.0, 0.0]])
        >>> clashes(x)  # the first and the last
        tensor(0.2500, dtype=torch.float64)
    """
    if separation < 1:
        raise DataError(f"a residue is no pair with itself, so separation must be >= 1, got {separation}")
    x, counts = counted(x, mask)
    near = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") < cutoff  # never, where one is nan
    return near.triu(separation).sum((-2, -1)).double() / counts.sum(-1)


def handedness(
    x: Float[Tensor, "*batch n 3"], *, mask: Bool[Tensor, "*batch n"] | None = None
) -> Float64[Tensor, "*batch"]:
    r"""Mean sine of the dihedrals near a helix of either hand: above 0 for proteins, below 0 for mirror images.

    $$ h = \big\langle \sin \tau_i \big\rangle_{\,20° \le |\tau_i| \le 80°} $$

    0.77 for right-handed alpha helices alone. Of 685 measured chains 677 are above 0, with a mean of 0.50; those below
    have hardly a helix. A mirror changes the sign, exactly. Where no dihedral is near a helix the answer is nan.

    Args:
        x: Places in angstrom, a chain or a batch of chains.
        mask: Residues that count; not given: all.

    Returns:
        One number in [-1, 1] a chain.

    Raises:
        DataError: As `pseudo_dihedrals`.

    Example:
        >>> turn = torch.arange(12) * 100 * torch.pi / 180  # an alpha helix
        >>> x = torch.stack([2.3 * turn.cos(), 2.3 * turn.sin(), 1.5 * torch.arange(12)], 1)
        >>> mirror = torch.tensor([1.0, 1.0, -1.0])
        >>> round(float(handedness(x)), 2), round(float(handedness(x * mirror)), 2)
        (0.77, -0.77)
    """
    tau = pseudo_dihedrals(x, mask=mask)
    helix = (tau.abs() >= HELIX[0]) & (tau.abs() <= HELIX[1])
    return tau.sin().where(helix, torch.nan).nanmean(-1)
