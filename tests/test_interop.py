"""Other people's networks in our models."""

import pytest
import torch

from renorm.diffusion.mode_diffusion import ModeDiffusion
from renorm.diffusion.spec import DiffusionSpec
from renorm.fit.spec import FitSpec
from renorm.interop.diffusers import from_diffusers
from renorm.lattice import Lattice

diffusers = pytest.importorskip("diffusers")


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_unet_of_diffusers_trains_and_samples(num_classes, generator):
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(4, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
        add_attention=False,
        num_class_embeds=num_classes + 1 if num_classes else None,
    )
    before = [p.clone() for p in unet.parameters()]
    lattice = Lattice((8, 8), channels=3)
    model = ModeDiffusion(DiffusionSpec(steps=3), lattice, network=from_diffusers(unet), num_classes=num_classes)
    condition = torch.arange(8) % num_classes if num_classes else None
    x = torch.randn(8, 3, 8, 8, generator=generator)
    model.fit(x, condition=condition, spec=FitSpec(steps=2, batch=4, warmup=1), progress=False)
    assert any(not torch.equal(p, q) for p, q in zip(unet.parameters(), before, strict=True))
    y = model.sample(2, generator=generator)
    assert y.shape == (2, 3, 8, 8)
    assert y.isfinite().all()
    if num_classes:
        one, two = (
            model.sample(1, condition=torch.tensor([c]), generator=torch.Generator().manual_seed(0)) for c in (0, 1)
        )
        assert not torch.equal(one, two)


def test_scale_and_class_arrive_as_theirs():
    """t = 0.25 is step 250; no condition means the last class."""
    from types import SimpleNamespace

    seen = []

    class Spy(torch.nn.Module):
        config = SimpleNamespace(num_class_embeds=4)

        def forward(self, x, step, class_labels=None):
            seen.append((step.tolist(), class_labels.tolist()))
            return SimpleNamespace(sample=x)

    network, x = from_diffusers(Spy()), torch.zeros(2, 1, 4, 4)
    network(x, torch.tensor([0.25, 1.0]))
    network(x, torch.tensor([0.25, 1.0]), torch.tensor([0, 2]))
    assert seen == [([250.0, 1000.0], [3, 3]), ([250.0, 1000.0], [0, 2])]
