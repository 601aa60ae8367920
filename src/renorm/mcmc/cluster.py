"""Cluster moves: whole regions of one sign turn at once, so that order forms and melts in a few steps."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int32
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from renorm.mcmc.kernel import Info, State

__all__ = ["Cluster"]


@dataclass(frozen=True)
class Cluster:
    r"""Swendsen-Wang or Wolff moves for $S(\phi) = \sum_x V(|\phi_x|) - J\sum_{\langle xy\rangle}\phi_x\phi_y$.

    $$ p(\text{bond } xy) = 1 - e^{-2\max(0,\; J\phi_x\phi_y)} $$

    Then every cluster of sites that bonds connect turns its sign with probability one half (Swendsen-Wang), or the
    cluster $C$ of one random site of each chain turns (Wolff). For spins $\phi = \pm 1$ that is all; fields also need a
    kernel for the modulus, see `Cycle`. Any torus will do, an odd one too, and any even potential: it does not enter.

    A random site is more likely in a large cluster, so a Wolff move near the critical point turns much of a field; in
    disorder it turns a few sites. Its size measures the susceptibility of the signs, in disorder with less noise than
    $m^2$ does:

    $$ \langle |C| \rangle = \frac1V \Big\langle \Big(\sum_x \operatorname{sign}\phi_x\Big)^2 \Big\rangle
       \qquad (J \ge 0) $$

    Args:
        coupling: $J$ of a bond, in nats per field unit squared: $\beta$ of Ising, $2\kappa$ of lattice $\phi^4$.
        single: Whether one cluster of each chain turns (Wolff), and not each with probability one half.

    Source:
        Swendsen & Wang 1987 (Phys. Rev. Lett. 58, 86); Wolff 1989 (Phys. Rev. Lett. 62, 361); Brower & Tamayo 1989
        (Phys. Rev. Lett. 62, 1087).

    Example:
        >>> kernel = Cluster(100.0)  # so cold that all spins are one cluster
        >>> state, _ = kernel.step(kernel.start(torch.ones(5, 1, 4, 4)), generator=torch.Generator().manual_seed(0))
        >>> bool((state.x.flatten(1).mean(1).abs() == 1).all())
        True
        >>> kernel = Cluster(0.0, single=True)  # so hot that each site is a cluster
        >>> state, info = kernel.step(kernel.start(torch.ones(2, 1, 4, 4)), generator=torch.Generator().manual_seed(0))
        >>> state.x.flatten(1).sum(1).tolist(), (16 * info.acceptance).tolist()
        ([14.0, 14.0], [1.0, 1.0])
    """

    coupling: float
    single: bool = False

    def start(self, x: Float[Tensor, "batch 1 *sites"]) -> State:
        """The state of chains that begin at these fields."""
        return State(x, 0.0, 0)

    def move(self, state: State, x: Float[Tensor, "batch 1 *sites"]) -> State:
        """The same state, put at other fields."""
        return state._replace(x=x)

    def step(self, state: State, *, generator: torch.Generator) -> tuple[State, Info]:
        """New signs for the clusters of every chain; the acceptance is the share of sites that turned."""
        x = state.x
        labels = _clusters(x, self.coupling, generator)
        if self.single:
            each = labels.flatten(1)
            site = torch.randint(each.shape[1], (len(x), 1), generator=generator, device=x.device)
            turn = (each == each.gather(1, site)).reshape(x.shape)
        else:
            turn = torch.randint(0, 2, (int(labels.max()) + 1,), generator=generator, device=x.device).bool()[labels]
        share = turn.to(x.dtype).flatten(1).mean(1)
        return State(torch.where(turn, -x, x), state.step_size, state.steps_done + 1), Info(share)


def _clusters(x: Tensor, coupling: float, generator: torch.Generator) -> Int32[Tensor, "batch 1 *sites"]:
    """The number of each site's cluster, over all chains at once."""
    site = torch.arange(x.numel(), dtype=torch.int32).reshape(x.shape)
    ends = []
    for axis in range(2, x.dim()):
        chance = -torch.expm1(-2 * (coupling * x * x.roll(-1, axis)).clamp_min(0))
        u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        ends.append(torch.where((u < chance).cpu(), site.roll(-1, axis), site))
    # A row of the graph for each site: what its bonds reach, or, where there is none, the site itself. So rows
    # have one length, and nothing has to be sorted.
    reached = torch.stack(ends, dim=-1).flatten().numpy()
    rows = np.arange(0, len(reached) + 1, len(ends), dtype=np.int32)
    graph = csr_array((np.ones(len(reached)), reached, rows), shape=(x.numel(), x.numel()))
    labels = connected_components(graph, directed=False)[1].reshape(tuple(x.shape))
    return torch.from_numpy(labels).to(x.device)
