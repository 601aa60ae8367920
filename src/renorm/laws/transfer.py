r"""Partition functions of fields on narrow tori: a transfer matrix from row to row, by Gauss quadrature at each site.

For $S = \sum_x V(\phi_x) - J\sum_{\langle xy\rangle}\phi_x\phi_y$ on $M$ rows of $w$ sites,
$Z = \operatorname{tr}T^M$ with

$$ T(a, b) = \sqrt{D(a)}\,\prod_{x=1}^w e^{-\frac{|J|}2(a_x - \operatorname{sgn}(J)\,b_x)^2}\,\sqrt{D(b)}. $$

Between rows $T$ is a product over sites, so that it is applied axis by axis and never stored. A row and its images
under rotation, reflection and change of sign have equal weight: one of each orbit is followed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator, eigsh

__all__ = ["GaussRule", "RowTransfer", "TorusMoments", "gauss_rule"]

CHUNK = 2**22
"""Numbers held at a time, so that the largest lattices fit in memory."""


@dataclass(frozen=True, eq=False)
class GaussRule:
    r"""$\int f\,d\phi \approx \sum_i w_i f(\phi_i)$ for functions close to a polynomial times the rule's weight.

    Args:
        nodes: $\phi_i$, rising, symmetric about 0.
        log_weight: $\ln w_i$, the weight of the rule divided out.
    """

    nodes: Float64[np.ndarray, " nodes"]
    log_weight: Float64[np.ndarray, " nodes"]


def gauss_rule(log_density: Callable[[np.ndarray], np.ndarray], num: int, reach: float) -> GaussRule:
    r"""Gauss quadrature whose weight is any even density: orthogonal polynomials by Lanczos on a fine grid.

    Args:
        log_density: Log of the weight, up to a constant, of an array of fields.
        num: Nodes.
        reach: The weight is negligible beyond this $|\phi|$.

    Returns:
        Nodes, and weights for integrals over $d\phi$.

    Source:
        Golub & Welsch 1969, "Calculation of Gauss quadrature rules".

    Example:
        >>> rule = gauss_rule(lambda phi: -phi**2, 8, 7.0)
        >>> float(np.exp(rule.log_weight - rule.nodes**2).sum().round(9)), round(math.sqrt(math.pi), 9)
        (1.772453851, 1.772453851)
    """
    grid = np.linspace(-reach, reach, 4001)
    log_w = log_density(grid)
    top = log_w.max()
    basis = np.zeros((num, len(grid)))
    vector = np.exp((log_w - top) / 2)
    mass = float(vector @ vector)
    off = np.zeros(num)  # the recurrence x p_k = off[k+1] p_{k+1} + off[k] p_{k-1}; symmetry leaves no diagonal
    for k in range(num):
        off[k] = np.linalg.norm(vector)
        basis[k] = vector / off[k]
        vector = grid * basis[k]
        for _ in range(2):  # once is not enough for orthogonality to the last digit
            vector = vector - basis[: k + 1].T @ (basis[: k + 1] @ vector)
    nodes = eigh_tridiagonal(np.zeros(num), off[1:], eigvals_only=True)
    nodes = (nodes - nodes[::-1]) / 2
    # Christoffel's numbers by the recurrence: relative digits, also for the far nodes.
    previous, current = np.zeros(num), np.full(num, 1 / math.sqrt(mass))
    christoffel = current**2
    for k in range(1, num):
        previous, current = current, (nodes * current - (off[k - 1] if k > 1 else 0.0) * previous) / off[k]
        christoffel = christoffel + current**2
    log_weight = -np.log(christoffel) - (log_density(nodes) - top) + math.log(grid[1] - grid[0])
    return GaussRule(nodes, log_weight)


@dataclass(frozen=True)
class TorusMoments:
    r"""Exact answers on a torus of $N$ sites.

    Args:
        log_z: $\ln Z$ in nats.
        phi_sq: $\langle\phi^2\rangle$ at a site.
        phi_4: $\langle\phi^4\rangle$ at a site.
        neighbour: $\langle\phi_x\phi_{x+\hat\mu}\rangle$ summed over the two axes.
        chi: $N\langle m^2\rangle$, with $m$ the mean of the field.
    """

    log_z: float
    phi_sq: float
    phi_4: float
    neighbour: float
    chi: float


@dataclass(frozen=True, eq=False)
class RowTransfer:
    """The transfer matrix between rows of ``width`` sites.

    Args:
        rule: Quadrature at a site.
        potential: $V$ at the nodes, in nats.
        coupling: $J$ of a bond.
        width: Sites in a row.
        closed: Whether a row is a ring; if not it must be a single site.
    """

    rule: GaussRule
    potential: Float64[np.ndarray, " nodes"]
    coupling: float
    width: int
    closed: bool = True

    @property
    def num(self) -> int:
        """Nodes at a site."""
        return len(self.rule.nodes)

    @cached_property
    def rows(self) -> Int64[np.ndarray, "rows width"]:
        """Node of every site of every row."""
        return np.indices((self.num,) * self.width).reshape(self.width, -1).T

    @cached_property
    def fields(self) -> Float64[np.ndarray, "rows width"]:
        """Field of every site of every row."""
        return self.rule.nodes[self.rows]

    @cached_property
    def orbits(self) -> tuple[Int64[np.ndarray, " orbits"], Int64[np.ndarray, " orbits"]]:
        """One row of each orbit under rotation, reflection and change of sign, and the orbit's size."""
        place = self.num ** np.arange(self.width)[::-1]
        code = np.full(len(self.rows), len(self.rows))
        for turn in range(self.width):
            turned = np.roll(self.rows, turn, axis=1)
            for image in (turned, turned[:, ::-1]):
                code = np.minimum(code, np.minimum(image @ place, (self.num - 1 - image) @ place))
        return np.unique(code, return_counts=True)

    @cached_property
    def bonds(self) -> Float64[np.ndarray, " rows"]:
        """Sum over the bonds within a row of the product of their fields."""
        if not self.closed:
            return np.zeros(len(self.rows))
        return (self.fields * np.roll(self.fields, -1, axis=1)).sum(1)

    @cached_property
    def kernel(self) -> Float64[np.ndarray, "nodes nodes"]:
        """Between a site and the site of the next row."""
        x = self.rule.nodes
        return np.exp(-abs(self.coupling) / 2 * (x[:, None] - math.copysign(1, self.coupling) * x[None, :]) ** 2)

    @cached_property
    def log_row(self) -> Float64[np.ndarray, " rows"]:
        """Log of $D$: what stands within a row."""
        x = self.rule.nodes
        site = self.rule.log_weight - self.potential + abs(self.coupling) * x**2
        return site[self.rows].sum(1) + self.coupling * self.bonds

    @cached_property
    def log_top(self) -> float:
        """Log of the largest eigenvalue of $T$: $-$free energy of a row of an endless strip."""
        shift = float(self.log_row.max())
        root = np.exp((self.log_row - shift) / 2)
        size = len(root)
        operator = LinearOperator((size, size), matvec=lambda v: root * self._between((root * v.ravel())[None])[0])
        if size <= 64:
            return shift + math.log(np.linalg.eigvalsh(operator @ np.eye(size))[-1])
        top = eigsh(operator, k=1, v0=root, return_eigenvectors=False, tol=1e-14)[0]
        return shift + math.log(top)

    def log_z(self, length: int) -> float:
        r"""$\ln\operatorname{tr}T^M$ in nats."""
        half = length // 2
        total = 0.0
        for size, powers in self._powers(length - half):
            total += float(size @ (powers[half] * powers[length - half]).sum(1))
        return length * self.log_top + math.log(total)

    def moments(self, length: int) -> TorusMoments:
        """Partition function and moments of ``length`` rows of ``width`` sites."""
        magnet = self.fields.sum(1)
        square, fourth = (self.fields**2).mean(1), (self.fields**4).mean(1)
        sums = np.zeros(5)
        for (size, powers), rows in zip(self._powers(length), self._chunks(), strict=True):
            weight = size * np.take_along_axis(powers[length], rows[:, None], 1)[:, 0]
            own = magnet[rows]
            pairs = weight * own**2
            for apart in range(1, length):
                pairs = pairs + size * own * ((powers[apart] * powers[length - apart]) @ magnet)
            along = size * (powers[1] * powers[length - 1] * (self.fields[rows] @ self.fields.T)).sum(1) / self.width
            values = (np.ones(len(rows)), square[rows], fourth[rows], self.bonds[rows] / self.width)
            sums[:4] += [weight @ value for value in values]
            sums[4] += pairs.sum() / self.width
            sums[3] += along.sum()
        return TorusMoments(length * self.log_top + math.log(sums[0]), *(float(v) for v in sums[1:] / sums[0]))

    def _chunks(self) -> Iterator[Int64[np.ndarray, " chunk"]]:
        representatives, _ = self.orbits
        step = max(1, CHUNK // len(self.rows))
        for start in range(0, len(representatives), step):
            yield representatives[start : start + step]

    def _powers(self, most: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """Orbit sizes, and their rows of $1, T, T^2, ...$, with the largest eigenvalue of $T$ scaled to 1."""
        root = np.exp((self.log_row - self.log_top) / 2)
        _, sizes = self.orbits
        begin = 0
        for rows in self._chunks():
            power = np.zeros((len(rows), len(root)))
            power[np.arange(len(rows)), rows] = 1.0
            powers = [power]
            for _ in range(most):
                powers.append(root * self._between(root * powers[-1]))
            yield sizes[begin : begin + len(rows)].astype(float), powers
            begin += len(rows)

    def _between(self, rows: np.ndarray) -> np.ndarray:
        """The product of kernels applied to each row vector, one site after another."""
        batch, num = len(rows), self.num
        for _ in range(self.width):  # each pass contracts the first site and puts it last
            rows = rows.reshape(batch, num, -1).transpose(0, 2, 1) @ self.kernel
        return rows.reshape(batch, -1)
