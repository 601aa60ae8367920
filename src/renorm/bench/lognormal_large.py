r"""Lognormal maps of 128 x 128 sites and boxes of 32 x 32 x 32: a cascade and a diffusion, judged as in ``lognormal``.

The same law and the same measures; the cascade's networks are smaller, and see less, than those of ``lognormal``: in a
box a site has 26 neighbours and seven details, and a patch of five sites on a side would show it a thousand numbers.
"""

import torch

from renorm.bench.lognormal import (
    AMPLITUDE,
    DIFFUSION_STEPS,
    Networks,
    drawn,
    judged,
    likelihood,
    trained_cascade,
    trained_diffusion,
)
from renorm.bench.result import Result
from renorm.laws.lognormal import Lognormal

CASES = {
    (128, 128): Networks(period=4, radius=2, width=64, rows=2**15, maps=2**15, batch=2),
    (32, 32, 32): Networks(period=2, radius=1, width=32, rows=2**15, maps=2**14, batch=2),
}
SAMPLES, DIFFUSION_SAMPLES = 500, 200


def run(seed: int) -> Result:
    """Train both on maps and on boxes, and judge their draws and exact ones alike."""
    figures: dict[str, float] = {}
    table = []
    for shape, networks in CASES.items():
        law, name = Lognormal(shape, AMPLITUDE), " x ".join(map(str, shape))
        generator = torch.Generator().manual_seed(seed)
        model, seconds = trained_cascade(law, networks, generator)
        found = judged(law, drawn(model, SAMPLES, generator), generator) | likelihood(law, model, generator)
        diffusion = trained_diffusion(law, seconds, seed, generator)
        drawings = (
            diffusion.sample(50, generator=generator, steps=DIFFUSION_STEPS) for _ in range(DIFFUSION_SAMPLES // 50)
        )
        other = torch.cat(list(drawings))
        rows = {
            "cascade": found | {"seconds": seconds},
            "diffusion": judged(law, other, generator) | {"seconds": seconds},
            "exact draws": judged(law, law.sample(SAMPLES, generator=generator), generator),
        }
        for model_name, row in rows.items():
            number = DIFFUSION_SAMPLES if model_name == "diffusion" else SAMPLES
            table.append({"model": model_name, "shape": name, "samples": number} | row)
            key = f"{model_name.split()[0]}_{len(shape)}d"
            figures |= {f"{key}_{measure}": value for measure, value in row.items()}
    return Result(figures, table, (seed,))
