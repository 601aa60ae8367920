r"""A planner's ways as a picture: states as dots, moves as lines, laid out by the two slowest modes of their graph.

The places are eigenvectors of the Laplacian of the graph without directions, those of its two lowest eigenvalues above
0: what is a few moves apart is close together, and an orbit becomes a ring.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import eigsh

from renorm.errors import DataError
from renorm.planning.attractors import orbit
from renorm.planning.ways import Ways
from renorm.report.figures import PALETTE, svg

__all__ = ["portrait", "spectral_places"]

SHIFT = -1e-3  # just below the spectrum, where the Laplacian can be inverted
PALE, PRIZE = "#c3c8ce", "#b5562c"


def spectral_places(
    moves: Int[np.ndarray, "moves 2"], number: int, near: Bool[np.ndarray, " number"] | None = None
) -> Float64[np.ndarray, "states 2"]:
    """Where the states of the largest connected part are; nan for the others.

    Args:
        moves: From, to.
        number: Of states.
        near: If there are some of these states, the part that has most of them is taken.

    Raises:
        DataError: If no part has four states, so that there is nothing to lay out.

    Example: four states in a ring are a square, and a fifth one is apart.
        >>> places = spectral_places(np.array([[0, 1], [1, 2], [2, 3], [3, 0]]), 5)
        >>> np.linalg.norm(places[:4] - np.roll(places[:4], 1, axis=0), axis=1).round(6).tolist()
        [1.0, 1.0, 1.0, 1.0]
        >>> bool(np.isnan(places[4]).all())
        True
    """
    one = sparse.csr_array((np.ones(len(moves)), (moves[:, 0], moves[:, 1])), shape=(number, number))
    both = ((one + one.T) > 0).astype(np.float64)
    _, part = csgraph.connected_components(both, directed=False)
    counted = part if near is None or not near.any() else part[near]
    own = np.flatnonzero(part == np.bincount(counted, minlength=1).argmax())
    if len(own) < 4:
        raise DataError(f"a picture of ways needs four states or more that hang together, got {len(own)}")
    laplacian = csgraph.laplacian(both[own][:, own]).tocsc()
    start = np.random.default_rng(0).standard_normal(len(own))  # the same picture each time
    _, modes = eigsh(laplacian, 3, sigma=SHIFT, v0=start) if len(own) > 4 else np.linalg.eigh(laplacian.toarray())
    places = np.full((number, 2), np.nan)
    places[own] = modes[:, 1:3]
    return places


def portrait(ways: Ways, name: str = "ways") -> str:
    """SVG: states that lie on one orbit of goals in colour, goals large.

    Args:
        ways: What is known.
        name: The title.

    Raises:
        DataError: If no four states hang together.
    """
    pairs, goals = ways.pairs, ways.goals
    circling = orbit(pairs, goals, ways.losses)
    places = spectral_places(pairs, len(goals), circling)
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axes: Any = figure.add_subplot()
    drawn = pairs[~np.isnan(places[pairs]).any(axis=(1, 2))]
    axes.add_collection(LineCollection(list(places[drawn]), colors=PALE, linewidths=0.6, zorder=1))
    for which, colour, size in ((~circling, PALETTE["quiet"], 4), (circling, PALETTE["accent"], 7), (goals, PRIZE, 30)):
        axes.scatter(*places[which].T, s=size, c=colour, linewidths=0, zorder=2)
    shown = int((~np.isnan(places[:, 0])).sum())
    axes.set_title(f"{name}: {shown} of {len(goals)} states, {circling.sum()} on an orbit", fontsize=9)
    axes.set_aspect("equal", "datalim")
    axes.set_axis_off()
    axes.autoscale_view()
    return svg(figure, name)
