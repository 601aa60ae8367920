"""`renorm sound`: learn a sound, tell it again, generate, and complete it."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from renorm.cli.output import say, table
from renorm.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["sound"]

COMPLETED = 1024  # blocks, at most


def sound(options: argparse.Namespace) -> None:
    import numpy as np

    from renorm.fit.checkpoint import atomic
    from renorm.recipes.folder import machine, write_json
    from renorm.tokens.sounds.files import melody, read_wav, write_wav
    from renorm.tokens.sounds.sound_model import SoundModel

    if not 0 < options.seconds < math.inf:
        raise RecipeError(f"--seconds must be > 0 and finite, got {options.seconds}")
    source = Path(options.sound)
    heard, rate = (melody(), 8000) if options.sound == "melody" else read_wav(source)
    model = SoundModel.fit(heard, size=options.size, bands=options.bands, tokens=options.tokens, seed=options.seed)
    known = np.zeros((min(len(model.tokens), COMPLETED), options.bands), bool)
    known[:, : -(-options.bands // 2)] = True
    blocks = max(1, round(options.seconds * rate / model.size))
    sounds = {
        "regenerated": model.regenerated(),
        "completed": model.completed(known),
        "generated": model.generated(blocks, np.random.default_rng(options.seed)),
    }
    told = {
        "seconds": len(heard) / rate,
        "rate": rate,
        "tokens": [len(words) for words in model.words],
        "states": model.states,
        "snr_db": _snr(heard, sounds["regenerated"]),
        "completed_seconds": len(sounds["completed"]) / rate,
        "completed_snr_db": _snr(heard[: len(sounds["completed"])], sounds["completed"]),
    }
    out = Path(options.out or f"runs/sound-{source.stem}")
    out.mkdir(parents=True, exist_ok=True)
    for name, samples in sounds.items():
        with atomic(out / f"{name}.wav") as temporary:
            write_wav(temporary, samples, rate)
    write_json(out / "result.json", {"sound": options.sound, "seed": options.seed, **told, "machine": machine()})
    say(options, {"folder": str(out), **told}, f"{table(told)}\nwrote {out}: {', '.join(sounds)}.wav")


def _snr(heard: "np.ndarray", told: "np.ndarray") -> float:
    """Signal to noise, in decibels."""
    noise = float(((heard - told) ** 2).sum())
    return 10 * math.log10(float((heard**2).sum()) / noise) if noise > 0 else math.inf
