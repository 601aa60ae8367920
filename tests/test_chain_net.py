"""The network on chains: it turns with a chain, tells it from its mirror image, and sees no padding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from renorm.errors import RecipeError
from renorm.nn import chain
from renorm.nn.chain import LETTERS, ChainNet, Points, frames, pooling
from renorm.nn.spec import ChainNetSpec

SPEC = ChainNetSpec(width=16, layers=2, heads=2, pair=8)


def loud(spec: ChainNetSpec = SPEC) -> ChainNet:
    """A network whose every branch speaks: at birth most of them are silent."""
    generator = torch.Generator().manual_seed(0)
    net = ChainNet(spec, generator=generator)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return net.eval()


def walks(*counts: int, stretch: int = 2, seed: int = 0) -> Points:
    """Random chains, padded."""
    x = torch.randn(len(counts), 3, max(counts), generator=torch.Generator().manual_seed(seed)).cumsum(2)
    count = torch.tensor(counts)
    return Points(3.8 * math.sqrt(stretch) * x, count, count * stretch)


def rotation(seed: int) -> torch.Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    return q * torch.linalg.det(q)  # of determinant 1


def told(points: Points) -> dict[str, torch.Tensor]:
    length = int(points.residues.max())
    letters = torch.randint(20, (len(points.number), length), generator=torch.Generator().manual_seed(5))
    return {"t": torch.linspace(0.1, 0.9, len(points.number)), "letters": letters}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_it_turns_and_moves_with_the_chain(seed):
    net, points = loud(), walks(30, 21, seed=seed)
    turn = rotation(seed).float()
    moved = points._replace(x=torch.einsum("ij,bjn->bin", turn, points.x) + torch.tensor([30.0, -20, 9])[:, None])
    with torch.no_grad():
        before, after = net(points, **told(points)), net(moved, **told(points))
    assert (after - torch.einsum("ij,bjn->bin", turn, before)).abs().max() < 1e-5 * before.abs().max()


def test_a_mirror_image_is_another_chain():
    net, points = loud(), walks(30)
    mirror = torch.tensor([-1.0, 1, 1])[:, None]
    with torch.no_grad():
        before = net(points, **told(points))
        after = net(points._replace(x=mirror * points.x), **told(points))
    assert (after - mirror * before).abs().max() > 0.1 * before.abs().max()


def test_a_chain_sees_neither_its_padding_nor_another_chain():
    net, points = loud(), walks(30, 21)
    both = net(points, **told(points))
    alone = Points(points.x[1:, :, :21], points.number[1:], points.residues[1:])
    about = {key: value[1:] for key, value in told(points).items()}
    about["letters"] = about["letters"][:, :42]
    torch.testing.assert_close(both[1:, :, :21], net(alone, **about), rtol=1e-4, atol=1e-5)
    assert bool((both[1, :, 21:] == 0).all())
    junk = points.x.clone()
    junk[1, :, 21:] = math.nan
    assert torch.equal(net(points._replace(x=junk), **told(points)), both)


def test_rows_are_the_whole(monkeypatch):
    net, points = loud(), walks(30, 21)
    with torch.no_grad():
        whole = net(points, **told(points))
        monkeypatch.setattr(chain, "PAIRS", 2 * 30 * 7)
        torch.testing.assert_close(net(points, **told(points)), whole, rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_weight():
    spec = ChainNetSpec(width=16, layers=2, heads=2, pair=8, features=3)
    net, points = ChainNet(spec, generator=torch.Generator().manual_seed(0)), walks(12, 9)
    features = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(1))
    net(points, **told(points), features=features).square().sum().backward()
    silent = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert silent == []
    assert all(weight.grad.isfinite().all() for weight in net.parameters())


def test_letters_and_features_are_heard():
    net, points = loud(), walks(12)
    about = told(points)
    spoken = net(points, **about)
    assert not torch.allclose(spoken, net(points, **about | {"letters": about["letters"].flip(1)}))
    silent = torch.full_like(about["letters"], LETTERS)
    assert torch.equal(net(points, about["t"]), net(points, about["t"], silent))
    with pytest.raises(RecipeError, match="has no features"):
        net(points, **about, features=torch.zeros(1, 24, 3))
    with pytest.raises(RecipeError, match="needs the features"):
        loud(ChainNetSpec(width=16, layers=1, features=3))(points, **about)


def test_points_in_a_line_or_on_a_spot_have_no_frame():
    line = torch.zeros(1, 3, 8)
    line[0, 0] = torch.arange(8.0)
    for x in (line, torch.zeros(1, 3, 8)):
        net, points = loud(), Points(x, torch.tensor([8]), torch.tensor([8]))
        y = net(points, torch.tensor([0.5]))
        assert y.isfinite().all()
        assert bool((y[0, 1:] == 0).all())  # no direction beside the line
        assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), [*net.pair.parameters()]))


def test_frames_are_right_handed():
    found = frames(walks(20).x.mT, torch.tensor([20]), torch.tensor([1e-6]))
    torch.testing.assert_close(found @ found.mT, torch.eye(3).expand(1, 20, 3, 3), rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(1, 20), rtol=0, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 12), st.integers(0, 20))
def test_pooling_keeps_every_residue_once(count, more):
    residues = count + more
    share = pooling(torch.tensor([count]), torch.tensor([residues]), count + 1, residues + 2)[0]
    torch.testing.assert_close(share[:count].sum(1), torch.ones(count))
    torch.testing.assert_close(share.sum(0)[:residues], torch.full((residues,), count / residues))
    assert share[count:].abs().sum() == share[:, residues:].abs().sum() == 0
