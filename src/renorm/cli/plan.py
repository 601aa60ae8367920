"""`renorm plan`: watch a world at random, learn, play, and show it."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renorm.cli.options import settings_of
from renorm.cli.output import save_picture, say, table
from renorm.errors import DataError, RecipeError

if TYPE_CHECKING:
    from renorm.planning.inductive import InductivePlanner
    from renorm.planning.search import Planner
    from renorm.worlds.world import Frame, World, WorldSpace

__all__ = ["plan"]

SHOWN, STRIP = 240, 12  # frames of the animation, and of the strip
DRAWN = 5000  # states of a tower whose moves are drawn: beyond it is a blot
SECONDS = 0.06  # of a frame in the terminal


def plan(options: argparse.Namespace) -> None:
    import numpy as np

    from renorm.fit.checkpoint import atomic
    from renorm.planning.trial import trial
    from renorm.recipes.folder import machine, write_json
    from renorm.worlds.pictures import animation, strip

    if options.show and (options.json or not sys.stdout.isatty()):
        raise RecipeError("--show draws in a terminal: leave out --json, and do not send the output elsewhere")
    world, settings = _world(options)
    _tell(options, f"{options.world}: {options.frames} frames of random play, then {options.play} planned ones")
    found = trial(
        world,
        planner=options.planner,
        frames=options.frames,
        rounds=options.rounds,
        played=options.play,
        slip=options.slip,
        seed=options.seed,
        watch=_Painter(world.space) if options.show else None,
    )
    own = options.world.removeprefix("gym:").rpartition(":")[2].replace("/", "-")
    out = Path(options.out or f"runs/plan-{own}")
    out.mkdir(parents=True, exist_ok=True)
    pictures = found.played.pictures
    with atomic(out / "played.gif") as temporary:
        animation(temporary, pictures[:SHOWN], world.space)
    save_picture(out / "strip.png", strip(pictures[:STRIP], world.space))
    with atomic(out / "played.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **vars(found.played))
    drawn = _draw_ways(found.planner, out / "ways.svg", options.world)
    figures = found.figures()
    asked = {key: getattr(options, key) for key in ("planner", "frames", "rounds", "play", "slip")}
    about = {"world": options.world, "settings": settings, **asked, "seed": options.seed, "machine": machine()}
    write_json(out / "result.json", {**about, "figures": figures, "notes": found.notes})
    text = "\n".join([table(figures), *(f"note: {note}" for note in found.notes), f"wrote {out}/played.gif{drawn}"])
    say(options, {"world": options.world, "folder": str(out), **figures, "notes": found.notes}, text)


def _draw_ways(planner: "Planner | InductivePlanner", path: Path, world: str) -> str:
    """What a tower has learned as a picture; what to say of it."""
    from renorm.fit.checkpoint import atomic
    from renorm.planning.inductive import InductivePlanner

    path.unlink(missing_ok=True)  # that of an earlier run
    if not isinstance(planner, InductivePlanner) or len(planner.goals) > DRAWN:
        return ""
    from renorm.report.ways import portrait

    try:
        text = portrait(planner.ways, world)
    except DataError:  # too few states: no picture
        return ""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return " and ways.svg"


def _world(options: argparse.Namespace) -> "tuple[World, dict[str, str]]":
    settings = settings_of(options, "serve=random")
    if options.world.startswith("gym:"):
        from renorm.interop.gymnasium import make_gymnasium

        return make_gymnasium(options.world[4:], {key: _value(value) for key, value in settings.items()}), settings
    from renorm.worlds.named import named_world

    return named_world(options.world, settings), settings


def _value(text: str) -> Any:
    """A number, true or false where it reads as one, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


class _Painter:
    """It draws frame upon frame in the terminal, and counts."""

    def __init__(self, space: "WorldSpace") -> None:
        self.space, self.up, self.won, self.lost = space, "", 0, 0

    def __call__(self, frame: "Frame") -> None:
        from renorm.worlds.terminal import coloured

        self.won, self.lost = self.won + frame.reward, self.lost + frame.cost
        lines = f"{coloured(frame.picture, self.space)}\nwon {self.won}  lost {self.lost}"
        print(self.up + lines, flush=True)
        self.up = f"\x1b[{lines.count(chr(10)) + 1}A"
        time.sleep(SECONDS)


def _tell(options: argparse.Namespace, line: str) -> None:
    if not options.quiet:
        print(line, file=sys.stderr, flush=True)
