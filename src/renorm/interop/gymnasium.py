"""Gymnasium's environments as worlds to plan in, and our worlds as environments of Gymnasium (``renorm[plan]``)."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from renorm.errors import DataError, RecipeError
from renorm.worlds.world import Frame, World, WorldSpace

if TYPE_CHECKING:
    import gymnasium

__all__ = ["GymnasiumWorld", "as_environment", "make_gymnasium"]

Painter: TypeAlias = Callable[[np.ndarray, np.ndarray], None]
GROUND = (243, 245, 247)
COLOURS = 255


class GymnasiumWorld:
    """An environment of discrete actions, seen as a picture of few colours.

    An observation may be a number (``Discrete``: one of a row of sites), several (``MultiDiscrete``: a row for each),
    bits (``MultiBinary``), a picture or a row of whole numbers (``Box`` of unsigned bytes), or planes of bits as
    MinAtar has them (the last plane that is set gives the colour). A reward above 0 is a reward, one below 0 a cost. An
    episode that ends without a reward ends in a cost, one that is only cut short does not; the next frame is that of a
    new one.

    Args:
        environment: No other may use it meanwhile.
        step_cost: What every step costs, 0 or less, as -1 in ``CliffWalking``: rewards down to this are no cost, and an
            episode that ends with no less is won.

    Raises:
        RecipeError: If its actions are not discrete, or its observations are none of these.

    Example:
        >>> import gymnasium
        >>> world = GymnasiumWorld(gymnasium.make("FrozenLake-v1", is_slippery=False))
        >>> world.space.shape, len(world.space.actions)
        ((1, 16), 4)
        >>> world.reset(np.random.default_rng(0)).picture.argmax().item()
        0
        >>> [world.step(action)[1:] for action in (2, 1)]  # right, then down, into a hole
        [(0, 0), (0, 1)]
    """

    def __init__(self, environment: "gymnasium.Env[Any, Any]", *, step_cost: float = 0.0) -> None:
        from gymnasium import spaces

        if not isinstance(environment.action_space, spaces.Discrete):
            raise RecipeError(f"actions must be discrete, got {environment.action_space}")
        if not -np.inf < step_cost <= 0:
            raise RecipeError(f"step_cost is 0 or less, and finite, got {step_cost}")
        self.environment, self.step_cost = environment, step_cost
        self._first = int(environment.action_space.start)
        self._over = False
        shape, colours, self._paint = _seen_as(environment.observation_space)
        names = tuple(str(i) for i in range(int(environment.action_space.n)))
        self.space = WorldSpace(shape, _palette(colours), names)

    def reset(self, generator: np.random.Generator) -> Frame:
        """A new episode, of a seed that the generator draws."""
        self._over = False
        seen, _ = self.environment.reset(seed=int(generator.integers(2**31)))
        return Frame(self._picture(seen))

    def step(self, action: int) -> Frame:
        """One frame on; after the last one of an episode, the first of the next."""
        if self._over:
            self._over = False
            return Frame(self._picture(self.environment.reset()[0]))
        seen, reward, ended, cut, _ = self.environment.step(self._first + action)
        self._over = ended or cut
        won = float(reward) > 0 or (self.step_cost < 0 and ended and float(reward) >= self.step_cost)
        lost = float(reward) < self.step_cost or (ended and not won)
        return Frame(self._picture(seen), int(won), int(lost))

    def _picture(self, seen: Any) -> np.ndarray:
        seen = np.asarray(seen)
        if seen.shape != self.environment.observation_space.shape:
            raise DataError(
                f"the observation changed its shape from {self.environment.observation_space.shape} to {seen.shape}"
            )
        picture = np.zeros(self.space.shape, np.uint8)
        self._paint(picture, seen)
        return picture


def _seen_as(space: Any) -> tuple[tuple[int, int], int, Painter]:
    """Shape and colours of the pictures of a space, and what draws one."""
    from gymnasium import spaces

    if isinstance(space, spaces.Discrete):
        return (1, int(space.n)), 2, lambda picture, seen: _light(picture, seen[None] - space.start)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        shape = len(space.nvec), int(space.nvec.max())
        return shape, 2, lambda picture, seen: _light(picture, seen - space.start)
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return (1, space.shape[0]), 2, _copy
    if isinstance(space, spaces.Box) and len(space.shape) in (1, 2) and space.dtype == np.uint8:
        rows, columns = (1, *space.shape)[-2:]
        return (rows, columns), int(space.high.max()) + 1, _copy
    if len(space.shape or ()) == 3 and space.dtype == np.bool_:
        planes = np.arange(1, space.shape[2] + 1, dtype=np.uint8)
        shape = space.shape[0], space.shape[1]
        return shape, len(planes) + 1, lambda picture, seen: _copy(picture, (seen * planes).max(axis=2))
    raise RecipeError(
        f"observations must be discrete, bits, or a picture or row of unsigned bytes or planes of bits, got {space}; a "
        "wrapper of gymnasium may turn them into such"
    )


def _copy(picture: np.ndarray, seen: np.ndarray) -> None:
    picture[:] = seen


def _light(picture: np.ndarray, places: np.ndarray) -> None:
    """One site of each row."""
    picture[np.arange(len(places)), places] = 1


def make_gymnasium(name: str, settings: dict[str, Any] | None = None) -> GymnasiumWorld:
    """A world by the name that Gymnasium knows it by.

    Args:
        name: Of the environment; after the module that knows it and a colon, where it comes with another package:
            ``minatar.gym:MinAtar/Breakout-v1``. If that has a function ``register_envs``, it is called.
        settings: What its maker takes; and ``step_cost`` of the world.

    Raises:
        RecipeError: If Gymnasium is not installed, or has no such environment, or none that can be seen as a world.
    """
    try:
        import gymnasium
    except ImportError:
        raise RecipeError("worlds of gymnasium need it: pip install 'renorm[plan]'") from None
    asked = dict(settings or {})
    step_cost = asked.pop("step_cost", 0.0)
    if "render_mode" in asked:
        raise RecipeError("render_mode cannot be set: the world draws its own pictures")
    if not isinstance(step_cost, int | float) or isinstance(step_cost, bool):
        raise RecipeError(f"step_cost is a number, got {step_cost!r}")
    module, _, own = name.rpartition(":")
    try:
        if module:
            getattr(importlib.import_module(module), "register_envs", lambda: None)()
        environment = gymnasium.make(own, **asked)
    except (Exception, SystemExit) as error:  # what makes an environment is foreign code
        raise RecipeError(f"gymnasium cannot make '{name}': {type(error).__name__}: {error}") from None
    try:
        return GymnasiumWorld(environment, step_cost=float(step_cost))
    except RecipeError:
        environment.close()
        raise


def as_environment(world: World, *, frames: int | None = None) -> "gymnasium.Env[Any, Any]":
    """One of our worlds as an environment: the picture, and reward less cost.

    Args:
        world: It goes on after a loss, and never ends by itself.
        frames: After so many an episode is cut short; never, if not given.

    Example: what Gymnasium's own checker asks of an environment.
        >>> from gymnasium.utils.env_checker import check_env
        >>> from renorm.worlds.pong import Pong
        >>> environment = as_environment(Pong(), frames=100)
        >>> check_env(environment, skip_render_check=True)
        >>> environment.reset(seed=0)[0].shape
        (12, 9)
    """
    import gymnasium

    class Environment(gymnasium.Env[Any, Any]):
        def __init__(self) -> None:
            space = world.space
            self.action_space = gymnasium.spaces.Discrete(len(space.actions))
            self.observation_space = gymnasium.spaces.Box(0, len(space.palette) - 1, space.shape, np.uint8)
            self._left = frames

        def reset(
            self, *, seed: int | None = None, options: dict[str, Any] | None = None
        ) -> tuple[Any, dict[str, Any]]:
            super().reset(seed=seed)
            self._left = frames
            return world.reset(self.np_random).picture, {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            frame = world.step(int(action))
            if self._left is not None:
                self._left -= 1
            return frame.picture, float(frame.reward - frame.cost), False, self._left == 0, {"cost": frame.cost}

    return Environment()


def _palette(colours: int) -> tuple[tuple[int, int, int], ...]:
    """As many colours, the ground first, as far apart as they go."""
    import colorsys

    hues = [colorsys.hls_to_rgb(i * 0.381966 % 1, 0.42, 0.65) for i in range(colours - 1)]
    return (GROUND, *((round(COLOURS * r), round(COLOURS * g), round(COLOURS * b)) for r, g, b in hues))
