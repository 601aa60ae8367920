r"""What follows, given as much of the context as the data bear.

Variables are added to the context one at a time, each time the one whose evidence is largest, and none that has less
than the context without it. What is known without a variable is the prior with it: with $n_{co}$ counts of outcome o
in the larger context c, and $p_{co}$ the share of o in the smaller one,

$$ \Delta \ln Z = \sum_c \Big[ \ln\frac{\Gamma(\kappa)}{\Gamma(\kappa + n_c)} + \sum_o
   \ln\frac{\Gamma(\kappa p_{co} + n_{co})}{\Gamma(\kappa p_{co})} \Big] - \sum_{co} n_{co} \ln p_{co} . $$

So a context whose outcome is certain anyway costs nothing when it is divided. Prediction goes the way back: the
likeliest outcome of the largest context that was ever seen.

Source:
    Heckerman, Geiger, Chickering 1995, Machine Learning 20, 197 (evidence of a network); Cooper & Herskovits 1992,
    Machine Learning 9, 309 (the greedy choice).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64
from scipy.special import gammaln

from renorm.errors import DataError
from renorm.tokens.paths.register import Register
from renorm.tokens.paths.tally import Tally

__all__ = ["ContextLaw", "both", "evidence_gain", "undecided"]

UNKNOWN = -1


@dataclass(frozen=True)
class ContextLaw:
    """Tables of what followed, from no context to the largest.

    Attributes:
        variables: In the order in which they joined the context.
        books: For none, one, ... of them: the outcomes of each context.

    Example: the outcome is the second variable; the first says nothing.
        >>> variables = np.array([[0, 0], [1, 0], [0, 1], [1, 1]] * 5)
        >>> law = ContextLaw.fit(variables, variables[:, 1])
        >>> law.variables, law.predict(np.array([[7, 1], [0, 9]])).tolist()
        ((1,), [1, -1])
    """

    variables: tuple[int, ...]
    books: "tuple[_Book, ...]"

    @classmethod
    def fit(
        cls,
        variables: Int[np.ndarray, "number variables"],
        outcomes: Int[np.ndarray, " number"],
        *,
        strength: float = 1.0,
    ) -> "ContextLaw":
        r"""The law of these outcomes.

        Args:
            variables: All that may join the context; -1 where it is not known.
            outcomes: What followed.
            strength: $\kappa$, counts that the smaller context is worth in the larger one.

        Raises:
            DataError: If there is no outcome.
        """
        if not len(outcomes):
            raise DataError("a law of what follows needs one outcome or more, got none")
        chosen: list[int] = []
        rows, context = np.arange(len(outcomes)), np.zeros(len(outcomes), np.int64)
        while len(chosen) < variables.shape[1]:
            open_ = undecided(context, outcomes[rows])  # elsewhere nothing can be gained, and nothing lost
            rows, context = rows[open_], context[open_]
            left = [i for i in range(variables.shape[1]) if i not in chosen]
            gains = [evidence_gain(context, variables[rows, i], outcomes[rows], strength=strength) for i in left]
            best = int(np.argmax(gains))
            if gains[best] <= 0:
                break
            chosen.append(left[best])
            context = both(context, variables[rows, left[best]])
        sizes = range(len(chosen) + 1)
        return cls(tuple(chosen), tuple(_Book.of(variables[:, chosen[:size]], outcomes) for size in sizes))

    @property
    def nbytes(self) -> int:
        """Memory of all tables, in bytes."""
        arrays = sum(book.begins.nbytes + book.outcomes.nbytes + book.shares.nbytes for book in self.books)
        return arrays + sum(book.contexts.nbytes for book in self.books)

    @property
    def size(self) -> int:
        """Pairs of a context and an outcome, of the largest context."""
        return len(self.books[-1].outcomes)

    def predict(self, variables: Int[np.ndarray, "number variables"]) -> Int64[np.ndarray, " number"]:
        """The likeliest outcomes; -1 where not even the first variable was ever seen so (or there is none)."""
        return self.options(variables, most=1)[0][:, 0]

    def options(
        self, variables: Int[np.ndarray, "number variables"], *, most: int = 4, least: float = 1 / 16
    ) -> tuple[Int64[np.ndarray, "number most"], Float64[np.ndarray, "number most"]]:
        """The likeliest outcomes of each, and how large a share of all they were; -1 and 0 where there are no more.

        Args:
            variables: As they were learned.
            most: Outcomes told.
            least: Share below which an outcome is not told, unless it is the likeliest.

        Example: a die, of which nothing is known beforehand, and so is not made certain by being told in part.
            >>> law = ContextLaw.fit(np.zeros((60, 1), np.int64), np.arange(60) % 6)
            >>> law.options(np.zeros((1, 1), np.int64), most=2)[1].round(3).tolist()
            [[0.167, 0.167]]
        """
        outcomes = np.full((len(variables), most), UNKNOWN, np.int64)
        shares = np.zeros((len(variables), most))
        open_ = np.arange(len(variables))
        for size in range(len(self.variables), 0 if self.variables else -1, -1):
            book = self.books[size]
            number = book.contexts.find(variables[open_][:, list(self.variables[:size])])
            missed = number < 0
            here, number = open_[~missed], number[~missed]
            at = book.begins[number][:, None] + np.arange(most)
            share = np.where(at < book.begins[number + 1][:, None], book.shares[np.minimum(at, book.last)], 0.0)
            share[:, 1:][share[:, 1:] < least] = 0.0
            shares[here] = share
            outcomes[here] = np.where(share > 0, book.outcomes[np.minimum(at, book.last)], UNKNOWN)
            if len(here) == len(open_):
                break
            open_ = open_[missed]
        return outcomes, shares

    def probability(
        self, variables: Int[np.ndarray, "number variables"], outcome: int
    ) -> Float64[np.ndarray, " number"]:
        """How large a share one outcome was in the largest context that was seen; 0 where none was."""
        outcomes, shares = self.options(variables, most=len(self.books[0].outcomes), least=0.0)
        return np.asarray((shares * (outcomes == outcome)).sum(axis=1))


@dataclass(frozen=True)
class _Book:
    """The outcomes of each context, commonest first, of equals the one first seen.

    Attributes:
        contexts: Their numbers.
        begins: Where the outcomes of each begin, and where the last ones end.
        outcomes, shares: Of all contexts, one after the other.
    """

    contexts: Register
    begins: Int64[np.ndarray, " more"]
    outcomes: Int64[np.ndarray, " outcomes"]
    shares: Float64[np.ndarray, " outcomes"]

    @property
    def last(self) -> int:
        """Place of the last outcome."""
        return len(self.outcomes) - 1

    @classmethod
    def of(cls, variables: np.ndarray, outcomes: np.ndarray) -> "_Book":
        table, contexts = Tally(variables.shape[1] + 1), Register(variables.shape[1])
        table.learn(np.column_stack([variables, outcomes]))
        number = contexts.learn(table.rows[:, :-1])
        order = np.lexsort((np.arange(len(number)), -table.counts, number))
        total = np.bincount(number, table.counts)
        begins = np.searchsorted(number[order], np.arange(len(contexts) + 1))
        return cls(contexts, begins, table.rows[order, -1], table.counts[order] / total[number[order]])


def evidence_gain(
    context: Int[np.ndarray, " number"],
    variable: Int[np.ndarray, " number"],
    outcomes: Int[np.ndarray, " number"],
    *,
    strength: float = 1.0,
) -> float:
    r"""$\Delta \ln Z$ of a variable that joins the context, in nats.

    Args:
        context: What was known without it, as one number >= 0; all 0 where nothing was.
        variable: What joins.
        outcomes: What followed.
        strength: $\kappa$.

    Example: a variable that says all of ten fair coins; the first of each side costs ln 2.
        >>> coins = np.array([0, 1] * 5)
        >>> gain = evidence_gain(np.zeros(10, np.int64), coins, coins)
        >>> by_hand = 10 * np.log(2) + 2 * np.log(0.5 * 1.5 * 2.5 * 3.5 * 4.5 / (1 * 2 * 3 * 4 * 5))
        >>> bool(abs(gain - by_hand) < 1e-9)
        True
    """
    if not len(outcomes):
        return 0.0
    larger, known = both(context, variable), both(context, outcomes)
    share = np.bincount(known)[known] / np.bincount(context)[context]
    cell = both(larger, outcomes)
    count, total = np.bincount(cell).astype(np.float64), np.bincount(larger).astype(np.float64)
    share_of = np.empty(len(count))
    share_of[cell] = share  # one for all in a cell
    prior = strength * share_of
    within = gammaln(prior + count) - gammaln(prior) - count * np.log(share_of)
    return float(within.sum() + (gammaln(strength) - gammaln(strength + total)).sum())


def undecided(context: Int[np.ndarray, " number"], outcomes: Int[np.ndarray, " number"]) -> Bool[np.ndarray, " number"]:
    """Where the context leaves more than one outcome.

    Example:
        >>> undecided(np.array([0, 0, 1, 1]), np.array([5, 5, 5, 6])).tolist()
        [False, False, True, True]
    """
    if not len(outcomes):
        return np.zeros(0, bool)
    cells = both(context, outcomes)
    first = np.unique(cells, return_index=True)[1]
    return np.asarray(np.bincount(context[first], minlength=int(context.max()) + 1)[context] > 1)


def both(a: Int[np.ndarray, " number"], b: Int[np.ndarray, " number"]) -> Int64[np.ndarray, " number"]:
    """Two variables as one, whose values count from 0.

    Example:
        >>> both(np.array([5, 0, 5, 5]), np.array([-1, 2, -1, 7])).tolist()
        [1, 0, 1, 2]
    """
    low = b.min()
    codes = a.astype(np.int64) * (int(b.max()) - int(low) + 1) + (b - low)
    return np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.int64)
