"""The U-Net: Ho et al.'s count of parameters, translations, upsampling against its plain form, messages."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from conftest import TOLERANCE
from renorm.errors import RecipeError
from renorm.nn.digit_cnn import DigitCNN
from renorm.nn.embedding import ScaleEmbedding, sinusoids
from renorm.nn.spec import UNetSpec
from renorm.nn.unet import Attention, UNet, Upsample
from renorm.spec import from_toml, to_toml

SMALL = UNetSpec(width=8, multipliers=(1, 2, 2), blocks=1, attention=(1,), heads=2, dropout=0.0, groups=4)


def awake(net, generator):
    """Every weight drawn anew: a fresh network is near zero and would hide mistakes."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def count(net):
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def test_defaults_are_the_network_of_ho_et_al():
    with torch.device("meta"):
        assert count(UNet(UNetSpec(), dim=2, channels=3)) == 35_746_307


def test_spec_survives_toml():
    spec = UNetSpec(width=48, multipliers=(1, 3), groups=8, embedding=64, patch=2)
    assert from_toml(UNetSpec, to_toml(spec)) == spec


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 33}, "width must be even"),
        ({"groups": 24}, "groups must divide the width 128"),
        ({"heads": 3}, "heads must divide the width 128"),
        ({"attention": (4,)}, "attention levels are 0 to 3"),
        ({"multipliers": ()}, "at least one level"),
        ({"dropout": 1.0}, "dropout must be in"),
        ({"patch": 0}, "patch must be >= 1"),
    ],
)
def test_spec_says_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        UNetSpec(**wrong)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_translations_commute_on_a_periodic_lattice(dim, patch, generator):
    spec = UNetSpec(width=8, multipliers=(1, 2), blocks=1, attention=(0, 1), dropout=0.0, groups=4, patch=patch)
    net = awake(UNet(spec, dim=dim, channels=2, boundary="periodic"), generator).double()
    shape = (8, 12, 4)[:dim]
    x = torch.randn(3, 2, *shape, generator=generator, dtype=torch.float64)
    t = torch.rand(3, generator=generator, dtype=torch.float64)
    axes, shift = tuple(range(2, 2 + dim)), (spec.stride,) * dim
    y = net(x, t)
    moved = net(x.roll(shift, axes), t)
    assert y.std() > 0.1
    torch.testing.assert_close(moved, y.roll(shift, axes), rtol=1e-10, atol=1e-10)
    if spec.stride > 1:  # a shift below the stride is no symmetry, so the equality above says something
        assert (net(x.roll(1, 2), t) - y.roll(1, 2)).abs().max() > 1e-3


def test_an_open_boundary_is_felt(generator):
    net = awake(UNet(SMALL, dim=1, channels=1), generator)
    x, t = torch.randn(1, 1, 16, generator=generator), torch.rand(1, generator=generator)
    assert (net(x.roll(4, 2), t) - net(x, t).roll(4, 2)).abs().max() > 1e-2


@pytest.mark.parametrize("boundary", ["open", "periodic"])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_upsample_is_nearest_then_convolution(dim, boundary, dtype, generator):
    layer = awake(Upsample(4, dim, boundary), generator).to(dtype)
    x = torch.randn(2, 4, *(3, 5, 2)[:dim], generator=generator, dtype=dtype)
    mode = "circular" if boundary == "periodic" else "constant"
    fine = F.pad(F.interpolate(x, scale_factor=2), (1, 1) * dim, mode=mode)
    torch.testing.assert_close(layer(x), layer.conv(fine), rtol=0, atol=30 * TOLERANCE[dtype])


def test_attention_is_the_softmax_of_scaled_products(generator):
    """Two heads of three channels, written out site by site."""
    layer = awake(Attention(6, heads=2, groups=3), generator).double()
    x = torch.randn(1, 6, 2, 2, generator=generator, dtype=torch.float64)
    q, k, v = (layer.norm(x)[0].flatten(1).T @ layer.query_key_value.weight.T).split(6, dim=1)
    q, k, v = (part + bias for part, bias in zip((q, k, v), layer.query_key_value.bias.split(6), strict=True))
    mixed = torch.zeros(4, 6, dtype=torch.float64)
    for head in (slice(0, 3), slice(3, 6)):
        for site in range(4):
            weight = torch.exp((k[:, head] @ q[site, head]) / 3**0.5)
            mixed[site, head] = weight @ v[:, head] / weight.sum()
    expected = x[0] + (mixed @ layer.out.weight.T + layer.out.bias).T.reshape(6, 2, 2)
    torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-12)


def test_sites_of_a_patch_come_back_in_order(generator):
    """The tail's channels are the sites of a patch, row by row."""
    spec = UNetSpec(width=8, multipliers=(1,), blocks=1, attention=(), groups=4, patch=2)
    net = awake(UNet(spec, dim=2, channels=1), generator)
    with torch.no_grad():
        net.tail.weight.zero_()
        net.tail.bias.copy_(torch.arange(4.0))
    y = net(torch.zeros(1, 1, 4, 4), torch.zeros(1))
    assert y[0, 0].tolist() == [[0, 1, 0, 1], [2, 3, 2, 3]] * 2


@given(
    dim=st.integers(1, 3),
    boundary=st.sampled_from(["open", "periodic"]),
    cells=st.integers(1, 3),
    channels=st.integers(1, 3),
)
def test_any_resolution_divisible_by_the_stride(dim, boundary, cells, channels):
    generator = torch.Generator().manual_seed(cells)
    net = awake(UNet(SMALL, dim=dim, channels=channels, boundary=boundary, out_channels=2), generator)
    shape = (SMALL.stride * cells, SMALL.stride, SMALL.stride)[:dim]
    y = net(torch.randn(2, channels, *shape, generator=generator), torch.rand(2, generator=generator))
    assert y.shape == (2, 2, *shape)
    assert torch.isfinite(y).all()


def test_a_size_that_does_not_divide_is_named():
    net = UNet(SMALL, dim=2, channels=1)
    with pytest.raises(RecipeError, match=r"divisible by its stride 4 .* got sites \(8, 30\)"):
        net(torch.zeros(1, 1, 8, 30), torch.zeros(1))


def test_no_class_is_the_last_label(generator):
    net = awake(UNet(SMALL, dim=1, channels=1, num_classes=3), generator)
    x, t = torch.randn(2, 1, 8, generator=generator), torch.rand(2, generator=generator)
    free = net(x, t)
    assert torch.equal(free, net(x, t, torch.tensor([3, 3])))
    assert (free - net(x, t, torch.tensor([0, 2]))).abs().amin(dim=(0, 1, 2)) > 0
    with pytest.raises(RecipeError, match="no classes"):
        UNet(SMALL, dim=1, channels=1)(x, t, torch.tensor([0, 1]))


def test_each_field_is_seen_alone(generator):
    """No number of one field depends on its neighbours in the batch."""
    net = awake(UNet(SMALL, dim=2, channels=1, num_classes=3), generator).double()
    x = torch.randn(3, 1, 8, 8, generator=generator, dtype=torch.float64)
    t, condition = torch.rand(3, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 3])
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], condition[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, t, condition), alone, rtol=1e-10, atol=1e-10)


def test_a_new_network_is_quiet_and_repeatable():
    nets = [UNet(SMALL, dim=2, channels=1, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    x, t = torch.ones(1, 1, 8, 8), torch.full((1,), 0.5)
    a, b = (net.eval()(x, t) for net in nets)
    assert torch.equal(a, b)
    assert a.abs().max() < 1e-3


def test_training_is_repeatable_bit_for_bit():
    def train():
        generator = torch.Generator().manual_seed(3)
        net = UNet(SMALL, dim=2, channels=1, generator=generator)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
        for _ in range(3):
            x, t = torch.randn(8, 1, 16, 16, generator=generator), torch.rand(8, generator=generator)
            optimizer.zero_grad()
            (net(x, t) - x).square().mean().backward()
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    assert torch.equal(train(), train())


def test_every_weight_learns(generator):
    net = awake(UNet(SMALL, dim=2, channels=1, num_classes=2), generator)
    x, t = torch.randn(2, 1, 8, 8, generator=generator), torch.rand(2, generator=generator)
    (net(x, t, torch.tensor([0, 1])).sum() + net(x, t).sum()).backward()
    assert all(p.grad is not None for p in net.parameters())
    # Biases before a group norm of the whole group may not matter; every matrix must.
    assert all(p.grad.abs().max() > 0 for p in net.parameters() if p.ndim > 1)


def test_sinusoids_by_hand():
    # width 4: rates 1 and 1/100, so t = 0.1 has the phases 100 and 1
    expected = [[-0.506366, 0.841471, 0.862319, 0.540302]]
    torch.testing.assert_close(sinusoids(torch.tensor([0.1]), 4), torch.tensor(expected), rtol=0, atol=1e-4)


def test_embedding_adds_the_row_of_the_class(generator):
    embed = ScaleEmbedding(8, 16, num_classes=4)
    t, condition = torch.rand(2, generator=generator), torch.tensor([1, 3])
    difference = embed(t, condition) - embed(t)
    expected = embed.table.weight[condition] - embed.table.weight[4]
    torch.testing.assert_close(difference, expected, rtol=0, atol=1e-5)


def test_weights_are_contiguous_as_safetensors_wants_them():
    net = UNet(SMALL, dim=2, channels=1)
    assert all(p.is_contiguous() for p in net.parameters())
    assert count(copy.deepcopy(net)) == count(net)


def test_digit_cnn_is_small_and_sees_each_digit_alone(generator):
    net = DigitCNN()
    x = torch.rand(3, 1, 32, 32, generator=generator)
    assert count(net) < 120_000
    torch.testing.assert_close(net.features(x)[:1], net.features(x[:1]), rtol=0, atol=1e-5)
