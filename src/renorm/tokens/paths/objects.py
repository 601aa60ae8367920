r"""Objects: tokens that are better foretold together than apart.

Two tokens are linked where one, now, says something of the other, in the next frame,

$$ I_{ij} = \sum_{ab} P(x_i(t) = a, x_j(t+1) = b) \ln\frac{P(x_i(t) = a, x_j(t+1) = b)}{P(a) P(b)} , \qquad
   \ell_{ij} = \frac{I_{ij} + I_{ji}}{\sqrt{H_i H_j}} . $$

Each token begins as a group of its own. Then groups are joined, the strongest link first, where that raises the
evidence of what comes next: of the two as one variable, given its last two states, against each by itself, given its
own last two states and, where they help, those of the other,

$$ \ln Z(A \cup B) > \ln Z(A \mid B) + \ln Z(B \mid A) . $$

Of a token that was hardly ever seen there is no evidence: it goes where its strongest link leads. Tokens of which at
most one is ever there say where one thing is: they are one object, whatever their number.

A ball is found so: no two of its sites are ever seen together, and yet each says where it will be. A bat is not joined
to it, although the two meet: together they have so many states that each is seen too rarely.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.special import entr, gammaln

from renorm.errors import DataError
from renorm.tokens.families.grouping import pair_information
from renorm.tokens.paths.context_law import both, evidence_gain, undecided
from renorm.tokens.trees.rows import distinct_rows

__all__ = ["lagged_links", "objects_of"]

TINY = 30.0
LEAST = 0.05
"""Links below this are noise."""
RARE = 10
"""A token that was there in fewer frames is hardly ever seen."""


def objects_of(
    tokens: Bool[np.ndarray, "frames tokens"], follows: Bool[np.ndarray, " frames"] | None = None
) -> Int64[np.ndarray, " tokens"]:
    """Object of each token, numbered by their first tokens.

    Args:
        tokens: Which are there, frame by frame.
        follows: Whether each frame but the last is followed by the next (and not by another episode); all, if not told.

    Raises:
        DataError: If there are less than three frames in a row.

    Example: two lights that take turns, and a third one that nobody can foretell.
        >>> rng = np.random.default_rng(0)
        >>> turns = np.arange(300) % 3 == 0
        >>> objects_of(np.stack([turns, rng.random(300) < 0.5, np.roll(turns, 1)], axis=1)).tolist()
        [0, 1, 0]
    """
    follows = np.ones(len(tokens), bool) if follows is None else follows
    now = 1 + np.flatnonzero(follows[:-2] & follows[1:-1]) if len(tokens) > 2 else np.empty(0, np.int64)
    if not len(now):
        raise DataError(f"objects need three frames in a row or more, got {len(tokens)} frames")
    if tokens.sum(axis=1).max() <= 1:
        return np.zeros(tokens.shape[1], np.int64)
    links = lagged_links(tokens, follows)
    np.fill_diagonal(links, 0.0)
    parts = [_Part.of(np.array([i]), tokens[:, i : i + 1], now) for i in range(len(links))]
    strength = np.where(links < LEAST, 0.0, links)
    open_, gone = strength.copy(), set[int]()
    while open_.any():
        a, b = np.unravel_index(open_.argmax(), open_.shape)
        one = parts[a].join(parts[b], now)
        if one.evidence <= parts[a].beside(parts[b], now) + parts[b].beside(parts[a], now):
            open_[a, b] = open_[b, a] = 0.0
            continue
        parts[a] = one
        strength[a] = np.maximum(strength[a], strength[b])
        strength[:, a] = strength[a]
        strength[b] = strength[:, b] = strength[a, a] = 0.0
        open_[a], open_[:, a] = strength[a], strength[a]  # with the new one all is open again
        open_[b] = open_[:, b] = 0.0
        gone.add(int(b))
    found = np.empty(tokens.shape[1], np.int64)
    left = [part for i, part in enumerate(parts) if i not in gone]
    rare = [part for part in left if len(part.members) == 1 and tokens[:, part.members].sum() < RARE]
    for g, part in enumerate(sorted(left, key=lambda part: int(part.members.min()))):
        found[part.members] = g
    for part in rare:
        (own,) = part.members
        others = np.flatnonzero(links[own] * ~np.isin(np.arange(len(links)), [p.members[0] for p in rare]))
        if len(others):
            found[own] = found[others[links[own, others].argmax()]]
    return np.unique(found, return_inverse=True)[1].reshape(-1).astype(np.int64)


class _Part(NamedTuple):
    """Some tokens as one variable.

    Attributes:
        members: The tokens.
        states: Number of their tuple in each frame.
        room: ln of the number of states that they could have had, were the first parts independent.
        evidence: Of what they do next by themselves, nats.
    """

    members: Int64[np.ndarray, " members"]
    states: Int64[np.ndarray, " frames"]
    room: float
    evidence: float

    @classmethod
    def of(cls, members: np.ndarray, tokens: np.ndarray, now: np.ndarray) -> "_Part":
        states = distinct_rows(tokens.view(np.uint8))[1]
        room = float(np.log(states.max() + 1))
        return cls(members, states, room, _evidence(states, room, now))

    def join(self, other: "_Part", now: np.ndarray) -> "_Part":
        """Both as one variable."""
        states, room = both(self.states, other.states), self.room + other.room
        return _Part(np.concatenate([self.members, other.members]), states, room, _evidence(states, room, now))

    def beside(self, other: "_Part", now: np.ndarray) -> float:
        """Evidence of what this one does next, where it may look at another one."""
        context, evidence = both(self.states[now], self.states[now - 1]), self.evidence
        open_ = undecided(context, self.states[now + 1])
        now, context = now[open_], context[open_]
        for told in (other.states[now], other.states[now - 1]):
            gain = evidence_gain(context, told, self.states[now + 1])
            if gain <= 0:
                break
            context, evidence = both(context, told), evidence + gain
        return evidence


def _evidence(states: np.ndarray, room: float, now: np.ndarray) -> float:
    """Of the next states, given two in a row: one count in all, shared by all states that there is room for."""
    nothing, then = np.zeros(len(now), np.int64), states[now + 1]
    count = np.unique(then, return_counts=True)[1].astype(np.float64)
    share = np.exp(-room)
    # of a share so small that it is lost in n, lnG(share + n) - lnG(share) = ln share + lnG(n)
    cells = gammaln(share + count) - gammaln(share) if room < TINY else gammaln(count) - room
    alone = float(cells.sum() - gammaln(1.0 + len(now)))
    one = evidence_gain(nothing, states[now], then)
    return alone + one + evidence_gain(states[now], states[now - 1], then)


def lagged_links(
    tokens: Bool[np.ndarray, "frames tokens"], follows: Bool[np.ndarray, " frames"] | None = None
) -> Float64[np.ndarray, "tokens tokens"]:
    r"""$\ell_{ij}$, symmetric; 0 for a token that never changes.

    Args:
        tokens: Which are there, frame by frame.
        follows: Whether each frame but the last is followed by the next (and not by another episode); all, if not told.

    Raises:
        DataError: If no frame follows another.

    Example: the second token says what the first one was; the third is by itself.
        >>> rng = np.random.default_rng(0)
        >>> first, third = rng.random((2, 1000)) < 0.5
        >>> links = lagged_links(np.stack([first, np.roll(first, 1), third], axis=1))
        >>> links.round(1).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    if len(tokens) < 2 or (follows is not None and not follows[:-1].any()):
        raise DataError(f"what follows what needs two frames in a row, got {len(tokens)} frames")
    met = np.ones(len(tokens) - 1, bool) if follows is None else follows[:-1]
    now, then = (part[met].astype(np.int64) for part in (tokens[:-1], tokens[1:]))
    information = pair_information(now, then)
    share = tokens.mean(axis=0)
    scale = np.sqrt(np.outer(*2 * [entr(share) + entr(1 - share)]))
    return np.asarray(np.divide(information + information.T, scale, out=np.zeros_like(scale), where=scale > 0))
