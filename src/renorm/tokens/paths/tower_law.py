r"""What a tower says of an episode: exact inference over levels and time, by one sweep up and one down.

Structure learning leaves tables of ones and zeros. With their counts $n$ they are a law over episodes: a state $s$ of
level $n$ says which event $e$ each child $c$ below goes through (at level 1: which token it has), an event which states
follow each other, and the states of the highest level are a chain:

$$ p(e_c \mid s) = \frac{n_s\,[e_c = \mathrm{row}_c(s)] + a\,q_c(e_c)}{n_s + a}, \qquad
   p(s' \mid s) = \frac{n_{ss'} + b\,q(s')}{n_s + b}, $$

where q tells how often each event or state was seen at all. Below a chain hangs a tree, so one sweep is exact: messages
go up as likelihoods, never as posteriors, and nothing that is seen counts twice. The cost of a table is the number of
its states, not the states times the events.

The free energy at the exact posterior is what the evidence is made of, level by level:

$$ F = -\ln p(o) = \sum_n \underbrace{\mathrm{E}_Q\,\mathrm{KL}\big[ Q(s_n \mid s_{n+1}, o) \,\|\,
   p(s_n \mid s_{n+1}) \big]}_{\text{complexity of level } n}
   - \underbrace{\mathrm{E}_Q \ln p(o \mid s_1)}_{\text{accuracy}} . $$

Source:
    The model: Friston et al. 2024, arXiv:2407.20292. The sweeps: Pearl 1988, on a chain of trees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int, Int64
from scipy.special import xlogy

from renorm.errors import DataError, RecipeError
from renorm.tokens.paths.factor import Factor
from renorm.tokens.paths.state_chain import StateChain, shares_of
from renorm.tokens.paths.tower import Tower
from renorm.tokens.paths.tower_tables import (
    Child,
    Message,
    Table,
    draw_events,
    events_given,
    message_of,
    one_hot,
    unrolled,
)

__all__ = ["Beliefs", "TowerLaw"]

Array = Float64[np.ndarray, "..."]

MOST_BYTES = 2**31  # of beliefs; what is worked with is a few times as much


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What an episode makes likely.

    Attributes:
        log_evidence: ln p(what is seen), in nats.
        episode: What was seen; -1 where it was hidden.
        states: For each level from the lowest, for each of its factors, p(state | episode) of (windows, states).
        filtered: For each factor of the highest level the same from what was seen until the end of each window.
        complexity: Of each level from the lowest, in nats.
        accuracy: Expected log likelihood of what is seen, in nats.
    """

    log_evidence: float
    episode: Int64[np.ndarray, "frames tokens"]
    states: list[list[Array]]
    filtered: list[Array]
    complexity: Float64[np.ndarray, " levels"]
    accuracy: float
    _outcomes: list[tuple[int, Table, Child]] = field(repr=False)

    @property
    def free_energy(self) -> float:
        """Complexity less accuracy: minus the log evidence, since the beliefs are exact."""
        return float(self.complexity.sum()) - self.accuracy

    def token(self, place: int) -> Float64[np.ndarray, "frames tokens"]:
        """p(token | episode) of one token in each frame; what is seen is certain."""
        seen = np.flatnonzero(self.episode[:, place] >= 0)
        shares = self._shares(place, np.arange(len(self.episode)))
        shares[seen] = 0
        shares[seen, self.episode[seen, place]] = 1
        return shares

    @property
    def likeliest(self) -> Int64[np.ndarray, "frames tokens"]:
        """Of each token by itself the likeliest; what is seen stays."""
        found = self.episode.copy()
        for place in range(found.shape[1]):
            hidden = np.flatnonzero(found[:, place] < 0)
            if len(hidden):
                found[hidden, place] = self._shares(place, hidden).argmax(axis=1)
        return found

    def _shares(self, place: int, frames: np.ndarray) -> np.ndarray:
        """Of a token, as if it were hidden."""
        factor, table, child = self._outcomes[place]
        belief = self.states[0][factor][frames]
        return (belief * table.sure) @ child.onto + (belief @ table.loose)[:, None] * child.base


@dataclass(frozen=True, eq=False)
class _Up:
    """The sweep up: log likelihood of each state in its window, and for levels above 1 the messages of children."""

    logs: list[list[Array]]
    messages: list[list[list[Message]]]


@dataclass(frozen=True)
class TowerLaw:
    """The law of a tower that has learned.

    Args:
        tower: Its counts, as they are now: what it learns later needs a new law.
        vocabulary: How many tokens there are of each kind, one number for all or one each; those that were seen, if not
            given. Tokens that were never seen get the share of a count of one that all tokens have in common.
        concentration: $a$, Dirichlet counts of outcomes that a state was never seen with.
        looseness: $b$, the same of successors.

    Raises:
        DataError: If the tower has learned nothing, or other tokens than the vocabulary has.
        RecipeError: If a concentration is not above 0.

    Example: two lights take turns; of the second frame one light is hidden.
        >>> tower = Tower([np.array([0, 1]), np.array([0, 0])])
        >>> lights = np.array([[0, 1], [1, 0]] * 8)
        >>> _ = tower.learn([lights])
        >>> law = TowerLaw(tower)
        >>> seen = np.array([[0, 1], [1, -1], [-1, -1], [-1, -1]])
        >>> beliefs = law.explain(seen)
        >>> beliefs.likeliest.tolist()
        [[0, 1], [1, 0], [0, 1], [1, 0]]
        >>> bool(abs(beliefs.free_energy + beliefs.log_evidence) < 1e-12)
        True
    """

    tower: Tower
    vocabulary: int | Sequence[int] | None = None
    concentration: float = 1 / 16
    looseness: float = 1 / 16
    _counted: int = field(init=False, repr=False, compare=False)
    _tables: list[list[Table]] = field(init=False, repr=False, compare=False)
    _chains: list[StateChain] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (self.concentration > 0 and self.looseness > 0):
            raise RecipeError(
                "concentration and looseness are counts > 0 of what was never seen, got "
                f"{self.concentration} and {self.looseness}"
            )
        if not all(len(factor.events) for level in self.tower.levels for factor in level):
            raise DataError("this tower has learned nothing yet; call its learn with an episode first")
        bases = self._token_bases()
        tables = []
        for level in self.tower.levels:
            tables.append([self._table(factor, bases) for factor in level])
            bases = [shares_of(factor.events.counts) for factor in level]
        object.__setattr__(self, "_tables", tables)
        object.__setattr__(self, "_counted", _counted(self.tower))
        object.__setattr__(self, "_chains", [StateChain.of(root, self.looseness) for root in self.tower.levels[-1]])

    def explain(self, episode: Int[np.ndarray, "frames tokens"]) -> Beliefs:
        """What is likely of all that is hidden, at all levels and times.

        Args:
            episode: -1 where a token is hidden; hidden frames at the end are foreseen.

        Raises:
            DataError: If an episode has no frame, or other tokens.
        """
        up = self._upward(episode)
        walks = [chain.walk(logs) for chain, logs in zip(self._chains, up.logs[-1], strict=True)]
        levels = len(self._tables)
        states: list[list[Array]] = [[] for _ in range(levels)]
        states[-1] = [walk.states for walk in walks]
        complexity = np.zeros(levels)
        complexity[-1] = sum(walk.complexity for walk in walks)
        for level in range(levels - 1, 0, -1):
            below: list[Array | None] = [None] * len(self._tables[level - 1])
            for place, table in enumerate(self._tables[level]):
                factor, belief = self.tower.levels[level][place], states[level][place]
                for child, message, which in zip(
                    table.children, up.messages[level][place], factor.children, strict=True
                ):
                    events = events_given(belief, table, child, message)
                    complexity[level - 1] += float(
                        xlogy(events, message.outcomes).sum() - xlogy(belief, message.states).sum()
                    )
                    below[which] = unrolled(events, self._tables[level - 1][which].steps)
            states[level - 1] = [belief for belief in below if belief is not None]
        return Beliefs(
            sum(walk.log_evidence for walk in walks),
            np.asarray(episode, np.int64),
            states,
            [walk.filtered for walk in walks],
            complexity,
            float(sum(_expected(q, logs) for q, logs in zip(states[0], up.logs[0], strict=True))),
            self._outcomes,
        )

    def filtered_twice(self, episode: Int[np.ndarray, "frames tokens"]) -> list[Array]:
        """Filtered beliefs of the highest level as SPM passes them: what a child tells is its posterior.

        That posterior holds what the parent expected already, so expectations count once at every level below, and
        beliefs are too sure. ``explain`` passes likelihoods, and is exact; with one level both are the same.

        Raises:
            DataError: If an episode has no frame, or other tokens.
        """
        up, found = self._upward(episode), []
        for place, (chain, logs) in enumerate(zip(self._chains, up.logs[-1], strict=True)):
            beliefs = np.empty_like(logs)
            for window in range(len(logs)):
                prior = chain.next(beliefs[window - 1]) if window else chain.first
                told = self._told_twice(len(self._tables) - 1, place, window, prior, up.logs[0])
                joint = prior * np.exp(told - told.max())
                beliefs[window] = joint / joint.sum()
            found.append(beliefs)
        return found

    def _told_twice(self, level: int, place: int, window: int, prior: Array, lowest: list[Array]) -> Array:
        """Log likelihood of each state of a factor in one window, if children tell posteriors."""
        if not level:
            return lowest[place][window]
        table, below, length = self._tables[level][place], self._tables[level - 1], self.tower.length
        logs = np.zeros(len(prior))
        for child, which in zip(table.children, self.tower.levels[level][place].children.tolist(), strict=True):
            expected = (prior * table.sure) @ child.onto + (prior @ table.loose) * child.base
            events = np.zeros(len(expected))
            for k, step in enumerate(below[which].steps):
                own = self._told_twice(level - 1, which, window * length + k, expected @ step, lowest)
                events += own[below[which].runs[:, k]]
            posterior = expected * np.exp(events - events.max())
            posterior /= posterior.sum()
            logs += np.log(table.sure * posterior[child.own] + table.loose * (posterior @ child.base))
        return logs

    @property
    def is_current(self) -> bool:
        """Whether the tower has learned nothing since this law was made."""
        return self._counted == _counted(self.tower)

    def outcome_sizes(self, level: int, place: int) -> list[int]:
        """How many outcomes each child of a factor has.

        Raises:
            RecipeError: If there is no such factor.
        """
        return [len(child.base) for child in self._table_of(level, place).children]

    def outcome_laws(self, level: int, place: int) -> list[Float64[np.ndarray, "_ states"]]:
        """p(outcome | state) of each child of a factor, as a dense table.

        Raises:
            RecipeError: If there is no such factor.
        """
        table = self._table_of(level, place)
        return [
            (child.onto.toarray() * table.sure[:, None] + table.loose[:, None] * child.base).T
            for child in table.children
        ]

    def log_evidence(self, episode: Int[np.ndarray, "frames tokens"]) -> float:
        """ln p(what is seen), in nats.

        Raises:
            DataError: If an episode has no frame, or other tokens.
        """
        logs = self._upward(episode).logs[-1]
        return sum(chain.forward(own)[1] for chain, own in zip(self._chains, logs, strict=True))

    def sample(
        self, episode: Int[np.ndarray, "frames tokens"], number: int, generator: np.random.Generator
    ) -> Int64[np.ndarray, "number frames tokens"]:
        """Draws of the episode: what is seen stays, what is hidden is drawn from its joint law given that.

        Raises:
            DataError: If an episode has no frame, or other tokens.
        """
        up = self._upward(episode)
        levels = len(self._tables)
        states = [chain.draw(logs, number, generator) for chain, logs in zip(self._chains, up.logs[-1], strict=True)]
        for level in range(levels - 1, 0, -1):
            below: list[np.ndarray | None] = [None] * len(self._tables[level - 1])
            for place, table in enumerate(self._tables[level]):
                children = zip(
                    table.children, up.messages[level][place], self.tower.levels[level][place].children, strict=True
                )
                for child, message, which in children:
                    events = draw_events(states[place], table.sure, child, message, generator)
                    below[which] = self._tables[level - 1][which].runs[events].reshape(number, -1)
            states = [own for own in below if own is not None]
        seen = _padded(episode, states[0].shape[1])
        out = np.repeat(seen[None], number, axis=0)
        for table, factor, own in zip(self._tables[0], self.tower.levels[0], states, strict=True):
            for child, token in zip(table.children, factor.children, strict=True):
                drawn = np.where(
                    generator.random(own.shape) < table.sure[own],
                    child.own[own],
                    generator.choice(len(child.base), own.shape, p=child.base),
                )
                out[:, :, token] = np.where(seen[:, token] >= 0, seen[:, token], drawn)
        return out[:, : len(episode)]

    def _table_of(self, level: int, place: int) -> Table:
        if not (1 <= level <= len(self._tables) and 0 <= place < len(self._tables[level - 1])):
            raise RecipeError(f"this tower has levels 1 to {len(self._tables)}, got level {level}, factor {place}")
        return self._tables[level - 1][place]

    def _table(self, factor: Factor, bases: list[Array]) -> Table:
        counts, rows, runs = factor.states.counts, factor.states.rows, factor.events.rows
        children = [Child(rows[:, i], bases[child]) for i, child in enumerate(factor.children)]
        steps = [one_hot(runs[:, k], len(counts)) for k in range(factor.length)]
        total = counts + self.concentration
        return Table(counts / total, self.concentration / total, children, steps, runs)

    def _token_bases(self) -> list[Array]:
        """How often each token was seen, one count shared by all."""
        known: list[np.ndarray] = [np.zeros(0)] * self.tower.tokens
        for factor in self.tower.levels[0]:
            for i, token in enumerate(factor.children):
                known[token] = np.bincount(factor.states.rows[:, i], factor.states.counts)
        seen = [len(counts) for counts in known]
        given = self.vocabulary
        sizes = seen if given is None else [int(given)] * len(seen) if isinstance(given, int) else list(given)
        if len(sizes) != len(seen) or any(size < own for size, own in zip(sizes, seen, strict=True)):
            raise DataError(f"the vocabulary must hold all tokens that were learned, {seen}, got {sizes}")
        padded = [np.pad(counts, (0, size - len(counts))) for counts, size in zip(known, sizes, strict=True)]
        return [(counts + 1 / len(counts)) / (counts.sum() + 1) for counts in padded]

    def _upward(self, episode: np.ndarray) -> _Up:
        if episode.ndim != 2 or episode.shape[1] != self.tower.tokens or not len(episode):
            raise DataError(f"an episode here is (frames, {self.tower.tokens} tokens), got {episode.shape}")
        if not np.issubdtype(episode.dtype, np.integer) or episode.min() < -1:
            raise DataError(f"tokens are whole numbers, -1 if hidden, got {episode.dtype} down to {episode.min()}")
        span, length = self.tower.spans[-1], self.tower.length
        tokens = _padded(episode, -(-len(episode) // span) * span)
        needed = 8 * sum(
            len(tokens) // n * (len(table.sure) + len(table.runs))
            for n, level in zip(self.tower.spans, self._tables, strict=True)
            for table in level
        )
        if needed > MOST_BYTES:
            raise DataError(
                f"beliefs of {len(episode)} frames over all states would take {needed / 2**30:.0f} GiB, more than "
                f"{MOST_BYTES / 2**30:.0f}; ask for fewer frames, or learn fewer states"
            )
        lowest = zip(self._tables[0], self.tower.levels[0], strict=True)
        logs = [[self._from_tokens(table, factor, tokens) for table, factor in lowest]]
        messages: list[list[list[Message]]] = [[]]
        for level in range(1, len(self._tables)):
            events = []
            for table, own in zip(self._tables[level - 1], logs[-1], strict=True):
                windows = own.reshape(-1, length, own.shape[1])
                events.append(sum(windows[:, k, table.runs[:, k]] for k in range(length)))
            now, sent = [], []
            for table, factor in zip(self._tables[level], self.tower.levels[level], strict=True):
                told = [
                    message_of(events[which], table, child)
                    for child, which in zip(table.children, factor.children, strict=True)
                ]
                sent.append([message for message, _ in told])
                now.append(sum(np.log(message.states) + scale for message, scale in told))
            logs.append(now)
            messages.append(sent)
        return _Up(logs, messages)

    def _from_tokens(self, table: Table, factor: Factor, tokens: np.ndarray) -> Array:
        """Log likelihood of each state in each frame."""
        logs = np.zeros((len(tokens), len(table.sure)))
        for child, token in zip(table.children, factor.children, strict=True):
            seen = tokens[:, token]
            if seen.max() >= len(child.base):
                raise DataError(f"token {token} is 0 to {len(child.base) - 1}, or -1 if hidden, got {seen.max()}")
            some = np.flatnonzero(seen >= 0)
            own = table.sure * (child.own == seen[some, None])
            logs[some] += np.log(own + table.loose * child.base[seen[some], None])
        return logs

    @property
    def _outcomes(self) -> list[tuple[int, Table, Child]]:
        """Of each token its factor, and how it comes of that."""
        found: dict[int, tuple[int, Table, Child]] = {}
        for place, (table, factor) in enumerate(zip(self._tables[0], self.tower.levels[0], strict=True)):
            for child, token in zip(table.children, factor.children.tolist(), strict=True):
                found[token] = place, table, child
        return [found[token] for token in range(self.tower.tokens)]


def _counted(tower: Tower) -> int:
    """How often states of the lowest level were seen in all."""
    return sum(int(factor.states.counts.sum()) for factor in tower.levels[0])


def _padded(episode: np.ndarray, frames: int) -> np.ndarray:
    return np.pad(np.asarray(episode, np.int64), ((0, frames - len(episode)), (0, 0)), constant_values=-1)


def _expected(belief: Array, logs: Array) -> float:
    return float((belief * logs).sum())
