"""What a world is: it shows a picture of few colours, takes an action, and says what the frame was worth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt8

from renorm.errors import DataError, RecipeError

__all__ = ["Frame", "Play", "Player", "World", "WorldSpace", "play", "random_player"]

Picture: TypeAlias = UInt8[np.ndarray, "rows columns"]


@dataclass(frozen=True)
class WorldSpace:
    """What may be seen and done in a world.

    Attributes:
        shape: Rows and columns of a picture.
        palette: Red, green and blue of each colour; a picture holds their numbers.
        actions: Their names; an action is a place in this list.
    """

    shape: tuple[int, int]
    palette: tuple[tuple[int, int, int], ...]
    actions: tuple[str, ...]


class Frame(NamedTuple):
    """What a world shows after an action.

    Attributes:
        picture: Colours of all sites.
        reward: 1 where something was won in this frame, else 0.
        cost: 1 where something was lost in this frame, else 0.
    """

    picture: Picture
    reward: int = 0
    cost: int = 0


@runtime_checkable
class World(Protocol):
    """A game without an end: after a loss it goes on."""

    space: WorldSpace

    def reset(self, generator: np.random.Generator) -> Frame:
        """Begin, with this randomness from now on."""
        ...

    def step(self, action: int) -> Frame:
        """One frame on."""
        ...


Player: TypeAlias = Callable[[Frame], int]
"""Shown a frame, it says an action; it may remember what it saw."""


@dataclass(frozen=True)
class Play:
    """Frames of one world in order, and what was done at each.

    Attributes:
        pictures: Colours.
        rewards, costs: Of each frame.
        actions: Taken when the frame was seen, so that the next frame is what came of it.
    """

    pictures: UInt8[np.ndarray, "frames rows columns"]
    rewards: Int64[np.ndarray, " frames"]
    costs: Int64[np.ndarray, " frames"]
    actions: Int64[np.ndarray, " frames"]

    def __len__(self) -> int:
        return len(self.pictures)

    def per_frames(self, frames: int = 512) -> tuple[float, float]:
        """Mean numbers of rewards and of costs in so many frames.

        Example:
            >>> zeros = np.zeros(4, np.int64)
            >>> Play(np.zeros((4, 1, 1), np.uint8), np.array([0, 1, 0, 0]), zeros, zeros).per_frames(8)
            (2.0, 0.0)
        """
        scale = frames / len(self)
        return float(self.rewards.sum() * scale), float(self.costs.sum() * scale)


def play(
    world: World,
    player: Player,
    frames: int,
    generator: np.random.Generator,
    *,
    slip: float = 0.0,
) -> Play:
    """Let a player act for so many frames, from the world's beginning.

    Args:
        world: It is reset.
        player: It chooses.
        frames: How many; the first one counts.
        generator: Of the world, and of slips.
        slip: Probability that the player's action is replaced by one drawn at random; the action taken is recorded.

    Raises:
        RecipeError: If ``frames`` or ``slip`` is out of range, or the player names an action that there is not.
        DataError: If the world shows a picture of another shape than it says.

    Example: a player who never moves.
        >>> from renorm.worlds.pong import Pong
        >>> found = play(Pong(), lambda frame: 1, 100, np.random.default_rng(0))
        >>> found.pictures.shape, int(found.rewards.sum() + found.costs.sum())
        ((100, 12, 9), 5)
    """
    if frames < 1:
        raise RecipeError(f"a play needs frames >= 1, got {frames}")
    if not 0 <= slip <= 1:
        raise RecipeError(f"slip is a probability, got {slip}")
    names = world.space.actions
    pictures = np.empty((frames, *world.space.shape), np.uint8)
    rewards, costs, actions = (np.zeros(frames, np.int64) for _ in range(3))
    frame = world.reset(generator)
    for t in range(frames):
        if frame.picture.shape != world.space.shape:
            raise DataError(f"frame {t} has shape {frame.picture.shape}, the world says {world.space.shape}")
        pictures[t], rewards[t], costs[t] = frame
        action = player(frame)
        if not 0 <= action < len(names):
            raise RecipeError(f"actions here are 0 to {len(names) - 1} ({', '.join(names)}), the player said {action}")
        if slip and generator.random() < slip:
            action = int(generator.integers(len(names)))
        actions[t] = action
        if t + 1 < frames:
            frame = world.step(action)
    return Play(pictures, rewards, costs, actions)


def random_player(actions: int, generator: np.random.Generator, *, persistence: float = 2.0) -> Player:
    r"""It keeps its action with probability $1 - 1/\tau$, else draws one of all.

    Args:
        actions: How many there are.
        generator: Draws them.
        persistence: $\tau$, in frames; 1: every action is drawn anew.

    Raises:
        RecipeError: If the persistence is below 1.

    Example:
        >>> player = random_player(3, np.random.default_rng(0), persistence=1e9)
        >>> len({player(Frame(np.zeros((1, 1), np.uint8))) for _ in range(9)})
        1
    """
    if persistence < 1:
        raise RecipeError(f"persistence is a number of frames >= 1, got {persistence}")
    last: int | None = None

    def player(frame: Frame) -> int:
        nonlocal last
        if last is None or generator.random() < 1 / persistence:
            last = int(generator.integers(actions))
        return last

    return player
