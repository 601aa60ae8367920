"""Inception and DINOv2: names and counts of the published files, and a second computation written out by hand.

The published weights are not here; random ones with their names and shapes stand in.
"""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from renorm.errors import DataError, RecipeError
from renorm.lattice import Lattice
from renorm.measure import features, pretrained
from renorm.measure.features import extractor, frechet
from renorm.measure.pictures import to_colour
from renorm.measure.pretrained import PRETRAINED, Pretrained, parse
from renorm.nn.dinov2 import SIZES, DinoV2
from renorm.nn.inception import Inception
from renorm.nn.weights import fill, read_weights, sha256_of
from renorm.recipes.judge import check_measurable
from renorm.recipes.recorded import check_recorded
from renorm.recipes.spec import MeasureSpec


def empty(make):
    with torch.device("meta"):
        return make()


def random_weights(network, generator):
    """Numbers for every key, such that planes neither die nor explode."""
    weights = {}
    for key, value in network.state_dict().items():
        fan = math.prod(value.shape[1:]) if value.dim() > 1 else 1
        draw = torch.randn(value.shape, generator=generator) if value.is_floating_point() else torch.zeros(value.shape)
        if key.endswith("running_var"):
            draw = draw.abs() / 2 + 0.1
        elif value.dim() == 4:
            draw = draw * (2 / fan) ** 0.5
        elif value.dim() == 2:
            draw = draw / fan**0.5
        weights[key] = draw.to(value.dtype)
    return weights


# -- Inception -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception_weights():
    return random_weights(empty(Inception), torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def inception(inception_weights):
    return fill(empty(Inception), inception_weights).eval().requires_grad_(False)


def test_inception_has_the_known_count_of_parameters():
    """The network is published with 23,851,784 numbers for 1000 classes: 2,049,000 of them in the head, 34,432 of
    them means and variances of batch norm, which has no scales there. So it has 34,432 / 2 = 17,216 normalised planes,
    and here, with scales as parameters and means and variances as buffers, 23,851,784 - 2,049,000 - 34,432 + 17,216
    parameters below the head. The head of 1008 classes has 1008 (2048 + 1).
    """
    net = empty(Inception)
    assert sum(p.numel() for p in net.parameters()) == 21_785_568 + 1008 * 2049 == 23_850_960
    assert 21_785_568 == 23_851_784 - 2_049_000 - 34_432 + 17_216
    assert sum(isinstance(module, torch.nn.Conv2d) for module in net.modules()) == 94


def test_inception_has_the_stages_of_the_paper(inception):
    """Table 1 of arXiv:1512.00567: sites and planes, from 299 x 299 to 8 x 8 x 2048."""
    expected = {
        "Conv2d_1a_3x3": (32, 149),
        "Conv2d_2a_3x3": (32, 147),
        "Conv2d_2b_3x3": (64, 147),
        "Conv2d_3b_1x1": (80, 73),
        "Conv2d_4a_3x3": (192, 71),
        "Mixed_5b": (256, 35),
        "Mixed_5d": (288, 35),
        "Mixed_6a": (768, 17),
        "Mixed_6e": (768, 17),
        "Mixed_7a": (1280, 8),
        "Mixed_7c": (2048, 8),
    }
    seen = {}
    hooks = [
        inception.get_submodule(name).register_forward_hook(
            lambda _, args, y, name=name: seen.__setitem__(name, (y.shape[1], y.shape[2]))
        )
        for name in expected
    ]
    try:
        assert inception(torch.full((1, 3, 32, 32), 0.5)).shape == (1, 1008)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == expected


class ByHand:
    """Inception-v3 written out from the figures of the paper; batch norm is folded into each convolution."""

    def __init__(self, weights):
        self.weights, self.used = weights, set()

    def __call__(self, x, name, stride=1, padding=(0, 0)):
        part = {key: self.weights[f"{name}.{key}"].double() for key in ("conv.weight", "bn.weight", "bn.bias")}
        mean, var = (self.weights[f"{name}.bn.running_{key}"].double() for key in ("mean", "var"))
        factor = part["bn.weight"] / (var + 0.001).sqrt()
        kernel = part["conv.weight"] * factor[:, None, None, None]
        self.used.add(name)
        return F.conv2d(x, kernel, part["bn.bias"] - mean * factor, stride=stride, padding=padding).clamp_min(0)

    def pooled(self, x, name, pool):
        rows, columns = x.shape[2:]
        if pool == "max":
            return self(F.max_pool2d(x, 3, 1, 1), f"{name}.branch_pool")
        kernel = torch.ones(x.shape[1], 1, 3, 3).double()
        inside = F.conv2d(torch.ones(1, 1, rows, columns).double(), kernel[:1], padding=1)  # 4, 6 or 9 sites
        return self(F.conv2d(x, kernel, padding=1, groups=x.shape[1]) / inside, f"{name}.branch_pool")

    def a(self, x, name):
        n = f"{name}.branch"
        five = self(self(x, n + "5x5_1"), n + "5x5_2", padding=(2, 2))
        three = self(x, n + "3x3dbl_1")
        three = self(self(three, n + "3x3dbl_2", padding=(1, 1)), n + "3x3dbl_3", padding=(1, 1))
        return torch.cat([self(x, n + "1x1"), five, three, self.pooled(x, name, "mean")], 1)

    def b(self, x, name):
        n = f"{name}.branch"
        double = self(self(self(x, n + "3x3dbl_1"), n + "3x3dbl_2", padding=(1, 1)), n + "3x3dbl_3", stride=2)
        return torch.cat([self(x, n + "3x3", stride=2), double, F.max_pool2d(x, 3, 2)], 1)

    def c(self, x, name):
        n, row, column = f"{name}.branch", (0, 3), (3, 0)
        one = self(self(self(x, n + "7x7_1"), n + "7x7_2", padding=row), n + "7x7_3", padding=column)
        two = self(x, n + "7x7dbl_1")
        for i, padding in ((2, column), (3, row), (4, column), (5, row)):
            two = self(two, f"{n}7x7dbl_{i}", padding=padding)
        return torch.cat([self(x, n + "1x1"), one, two, self.pooled(x, name, "mean")], 1)

    def d(self, x, name):
        n = f"{name}.branch"
        three = self(self(x, n + "3x3_1"), n + "3x3_2", stride=2)
        seven = self(self(self(x, n + "7x7x3_1"), n + "7x7x3_2", padding=(0, 3)), n + "7x7x3_3", padding=(3, 0))
        return torch.cat([three, self(seven, n + "7x7x3_4", stride=2), F.max_pool2d(x, 3, 2)], 1)

    def e(self, x, name, pool):
        n, row, column = f"{name}.branch", (0, 1), (1, 0)
        three = self(x, n + "3x3_1")
        double = self(self(x, n + "3x3dbl_1"), n + "3x3dbl_2", padding=(1, 1))
        parts = [self(three, n + "3x3_2a", padding=row), self(three, n + "3x3_2b", padding=column)]
        parts += [self(double, n + "3x3dbl_3a", padding=row), self(double, n + "3x3dbl_3b", padding=column)]
        return torch.cat([self(x, n + "1x1"), *parts, self.pooled(x, name, pool)], 1)

    def maps(self, x):
        h = self(self(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3")
        h = F.max_pool2d(self(h, "Conv2d_2b_3x3", padding=(1, 1)), 3, 2)
        h = F.max_pool2d(self(self(h, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        h = self.a(self.a(self.a(h, "Mixed_5b"), "Mixed_5c"), "Mixed_5d")
        h = self.c(self.c(self.b(h, "Mixed_6a"), "Mixed_6b"), "Mixed_6c")
        h = self.d(self.c(self.c(h, "Mixed_6d"), "Mixed_6e"), "Mixed_7a")
        return self.e(self.e(h, "Mixed_7b", "mean"), "Mixed_7c", "max")


def test_inception_is_what_the_paper_and_the_graph_say(inception, inception_weights, generator):
    """A second computation in float64, on a picture so small that the last planes have 3 x 3 sites."""
    x = 2 * torch.rand(1, 3, 139, 139, generator=generator) - 1
    hand = ByHand(inception_weights)
    expected = hand.maps(x.double())
    assert expected.shape == (1, 2048, 3, 3)
    assert expected.std() > 0.1
    torch.testing.assert_close(inception.maps(x).double(), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert {name for name, module in inception.named_modules() if hasattr(module, "conv")} == hand.used


def test_mean_pools_leave_the_border_out(inception):
    """A constant stays constant; with zeros of the border in the mean, corners would have 4/9 of it."""
    block = inception.Mixed_5b
    seen = []
    hook = block.branch_pool.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    block(torch.full((1, 192, 5, 5), 0.7))
    hook.remove()
    torch.testing.assert_close(seen[0], torch.full((1, 192, 5, 5), 0.7))


def test_pictures_reach_inception_at_299_in_minus_one_to_one(inception, monkeypatch):
    """Half a site of shift and no antialiasing: a ramp of 2 sites is flat, a line, flat; a large one is sampled."""
    seen = []
    monkeypatch.setattr(inception, "maps", lambda x: seen.append(x) or torch.zeros(len(x), 2048, 1, 1))
    ramp = torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2)
    inception.features(ramp)
    sites = ((torch.arange(299) + 0.5) * 2 / 299 - 0.5).clamp(0, 1)
    torch.testing.assert_close(seen[0], (2 * sites - 1).expand(1, 3, 299, 299), rtol=0, atol=1e-5)
    stripes = (torch.arange(598 * 5) % 10 == 4).float().expand(1, 3, 2990, 2990)  # antialiasing would make grey of it
    inception.features(stripes)
    torch.testing.assert_close(seen[1][0, 0, 0], torch.zeros(299), rtol=0, atol=1e-4)  # half of 4, half of 5: 2 / 2 - 1


# -- DINOv2 ----------------------------------------------------------------------------------------------------------


COLOURS = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)  # mean, std of ImageNet


def dino_names(depth):
    """The keys of the published files, ``dinov2_vits14_pretrain.pth`` and its siblings."""
    block = ["norm1", "attn.qkv", "attn.proj", "ls1.gamma", "norm2", "mlp.fc1", "mlp.fc2", "ls2.gamma"]
    names = {"cls_token", "pos_embed", "mask_token"}
    for layer in ["patch_embed.proj", "norm", *(f"blocks.{i}.{part}" for i in range(depth) for part in block)]:
        names |= {layer} if layer.endswith("gamma") else {f"{layer}.weight", f"{layer}.bias"}
    return names


@pytest.mark.parametrize(("size", "parameters"), [("small", 22_056_576), ("base", 86_580_480), ("large", 304_368_640)])
def test_dinov2_has_the_published_keys_and_counts(size, parameters):
    net = empty(lambda: DinoV2(*SIZES[size]))
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert set(net.state_dict()) == dino_names(SIZES[size][1])
    width = SIZES[size][0]
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["pos_embed"] == (1, 1370, width)
    assert shapes["cls_token"] == (1, 1, width)
    assert shapes["mask_token"] == (1, width)
    assert shapes["patch_embed.proj.weight"] == (width, 3, 14, 14)
    assert shapes["blocks.0.attn.qkv.weight"] == (3 * width, width)
    assert shapes["blocks.0.mlp.fc1.weight"] == (4 * width, width)


def cubic(size, points, a):
    """Matrix of bicubic interpolation at real points of a line; the border is repeated."""
    matrix = torch.zeros(len(points), size).double()
    for row, point in enumerate(points):
        for site in range(math.floor(point) - 1, math.floor(point) + 3):
            t = abs(point - site)
            near = (a + 2) * t**3 - (a + 3) * t**2 + 1
            far = a * (t**3 - 5 * t**2 + 8 * t - 4)
            matrix[row, min(max(site, 0), size - 1)] += near if t <= 1 else far
    return matrix


def norm_by_hand(x, weight, bias):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def dinov2_by_hand(x, w, depth, heads):
    """Tokens from colours at 224 x 224, patch by patch and head by head."""
    x = (x - COLOURS[0, :, None, None]) / COLOURS[1, :, None, None]
    patches = [x[:, :, 14 * i : 14 * i + 14, 14 * j : 14 * j + 14].flatten(1) for i in range(16) for j in range(16)]
    tokens = torch.stack(patches, 1) @ w["patch_embed.proj.weight"].flatten(1).T + w["patch_embed.proj.bias"]
    stretch = cubic(37, [(i + 0.5) * 37 / 16.1 - 0.5 for i in range(16)], a=-0.75)
    table = w["pos_embed"][0, 1:].unflatten(0, (37, 37))
    tokens = tokens + torch.einsum("ia,jb,abc->ijc", stretch, stretch, table).flatten(0, 1)
    h = torch.cat([(w["cls_token"] + w["pos_embed"][:, :1]).expand(len(x), 1, -1), tokens], 1)
    for i in range(depth):
        p = {key.removeprefix(f"blocks.{i}."): value for key, value in w.items() if key.startswith(f"blocks.{i}.")}
        y = norm_by_hand(h, p["norm1.weight"], p["norm1.bias"])
        width = y.shape[-1]
        q, k, v = (y @ p["attn.qkv.weight"].T + p["attn.qkv.bias"]).split(width, -1)
        size, mixed = width // heads, []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            logits = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)
            odds = (logits - logits.amax(-1, keepdim=True)).exp()
            mixed.append(odds / odds.sum(-1, keepdim=True) @ v[..., part])
        h = h + p["ls1.gamma"] * (torch.cat(mixed, -1) @ p["attn.proj.weight"].T + p["attn.proj.bias"])
        y = norm_by_hand(h, p["norm2.weight"], p["norm2.bias"]) @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"]
        y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
        h = h + p["ls2.gamma"] * (y @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"])
    return norm_by_hand(h, w["norm.weight"], w["norm.bias"])[:, 0]


def test_dinov2_is_what_the_formulas_say(generator):
    weights = random_weights(empty(lambda: DinoV2(24, 2, 3)), generator)
    weights["pos_embed"] = torch.randn(weights["pos_embed"].shape, generator=generator)
    net = fill(empty(lambda: DinoV2(24, 2, 3)).double(), weights).eval()
    x = torch.rand(2, 3, 224, 224, generator=generator, dtype=torch.float64)
    expected = dinov2_by_hand(x, {key: value.double() for key, value in weights.items()}, depth=2, heads=3)
    torch.testing.assert_close(net.features(x), expected, rtol=0, atol=1e-10)


def test_pictures_reach_dinov2_as_pillow_resizes_them(generator):
    """Antialiased bicubic at 224, down and up, clipped where it overshoots."""
    net = DinoV2(24, 1, 2)
    seen = []
    hook = net.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for side in (32, 300):
        x = torch.rand(1, 3, side, side, generator=generator)
        net.features(x)
        parts = [Image.fromarray(plane.numpy()).resize((224, 224), Image.Resampling.BICUBIC) for plane in x[0]]
        expected = torch.stack([torch.from_numpy(np.array(part)) for part in parts])
        assert side == 300 or expected.max() > 1.01  # it overshoots
        shown = seen.pop()[0] * COLOURS[1, :, None, None] + COLOURS[0, :, None, None]
        torch.testing.assert_close(shown, expected.clamp(0, 1).double(), rtol=0, atol=1e-4)
    hook.remove()


# -- files -----------------------------------------------------------------------------------------------------------

TINY = Pretrained(lambda: DinoV2(8, 1, 2), "tiny.pth", batch=3)


@pytest.fixture
def tiny(tmp_path, monkeypatch, generator):
    """A network that is small enough to write down many times, under the name ``dinov2-small``."""
    monkeypatch.setitem(PRETRAINED, "dinov2-small", TINY)
    weights = random_weights(TINY.empty(), generator)
    path = tmp_path / "tiny.safetensors"
    save_file(weights, path)
    return path, weights


def test_a_file_that_you_name_becomes_an_extractor(tmp_path, inception_weights):
    """The whole of Inception through a file: the head of a training and its counters may be there and are left."""
    path = tmp_path / "inception.safetensors"
    lacking = {key: value for key, value in inception_weights.items() if not key.endswith("num_batches_tracked")}
    save_file({**lacking, "AuxLogits.fc.bias": torch.zeros(1000)}, path)
    digits = hashlib.sha256(path.read_bytes()).hexdigest()
    known = extractor(f"inception:{path}@{digits[:8].upper()}")
    assert (known.name, known.sha256, known.reads) == ("inception", digits, (1, 3))
    state = known.network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in lacking.items())
    assert known(torch.full((1, 1, 28, 28), 0.5)).shape == (1, 2048)


def test_batches_bound_the_memory_and_change_nothing(tiny, generator):
    known = extractor(f"dinov2-small:{tiny[0]}")
    sizes = []
    known.network.patch_embed.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    x = torch.rand(7, 3, 32, 32, generator=generator)
    y = known(x)
    assert sizes == [3, 3, 1]
    torch.testing.assert_close(torch.cat([known(x[i : i + 1]) for i in range(7)]), y, rtol=0, atol=1e-5)
    assert not y.requires_grad


def test_grey_pictures_have_their_channel_three_times(tiny, generator):
    known = extractor(f"dinov2-small:{tiny[0]}")
    grey = torch.rand(2, 1, 20, 20, generator=generator)
    assert torch.equal(known(grey), known(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(DataError, match="1 or 3 channels"):
        to_colour(torch.zeros(1, 2, 8, 8))
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        known(2 * grey + 1)


def test_the_figure_carries_the_name_and_the_hash(tiny, generator):
    path, _ = tiny
    x = torch.rand(10, 3, 8, 8, generator=generator)
    found = frechet(x, x, extractor(f"dinov2-small:{path}"))
    assert found["figure"] == "FD[dinov2-small]"
    assert found["sha256"] == sha256_of(path)
    assert abs(found["value"]) < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("blocks.0.ls1.gamma"), r"1 missing \(blocks.0.ls1.gamma\)"),
        (lambda w: w.update({"register_tokens": torch.zeros(1, 4, 8)}), r"1 unknown \(register_tokens\)"),
        (lambda w: w.update({"norm.bias": torch.zeros(9)}), r"1 of another shape \(norm.bias\)"),
    ],
)
def test_a_file_with_other_keys_is_refused_in_one_line(tiny, change, message):
    path, weights = tiny
    change(weights)
    save_file(weights, path)
    with pytest.raises(DataError, match=message) as caught:
        extractor(f"dinov2-small:{path}")
    assert "\n" not in str(caught.value)
    assert "does not hold the weights of dinov2-small" in str(caught.value)


def test_other_weights_than_the_recorded_ones_are_refused(tiny):
    path, _ = tiny
    digits = sha256_of(path)
    assert extractor(f"dinov2-small:{path}@{digits}").sha256 == digits
    other = ("0" if digits[0] != "0" else "1") + digits[1:]
    for recorded in (other[:8], other):
        with pytest.raises(DataError, match="not the file that was recorded"):
            extractor(f"dinov2-small:{path}@{recorded}")


def test_names_with_files_are_parsed():
    assert parse("cifar10-resnet20") is None
    assert parse("inception") is None
    assert parse("resnet:file.pth") is None
    assert parse("inception:a/b@2x.pth").path.name == "b@2x.pth"
    assert parse("inception:a@b/c.pth@0123abCD").sha256 == "0123abcd"
    assert parse("inception:~/c.pth").path.is_absolute()
    for wrong, message in (
        ("inception:", "needs a file"),
        ("inception:@01234567", "needs a file"),
        ("inception:c.pth@0123", "8 to 64 hex digits"),
        ("inception:c.pth@0123456z", "8 to 64 hex digits"),
        ("inception:c.pth@", "8 to 64 hex digits"),
    ):
        with pytest.raises(DataError, match=message):
            parse(wrong)
    with pytest.raises(DataError, match="inception:FILE"):
        extractor("incepton:c.pth")


def test_files_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        extractor(f"inception:{tmp_path / 'absent.safetensors'}")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights at all")
    with pytest.raises(DataError, match="damaged or no safetensors file") as caught:
        extractor(f"inception:{damaged}")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="nothing is unpickled"):
        read_weights(_touched(tmp_path / "weights.pth"))


def _touched(path):
    path.write_bytes(b"")
    return path


def test_making_a_network_draws_no_number(tiny):
    before = torch.get_rng_state()
    extractor(f"dinov2-small:{tiny[0]}")
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_becomes_the_dtype_of_the_network(tiny):
    path, weights = tiny
    half = {key: value.half() for key, value in weights.items()}
    save_file(half, path)
    state = extractor(f"dinov2-small:{path}").network.state_dict()
    assert all(torch.equal(state[key], value.float()) for key, value in half.items())


# -- runs ------------------------------------------------------------------------------------------------------------


def test_a_run_is_not_measured_by_other_weights_under_the_same_name(tiny, tmp_path):
    path, weights = tiny
    measure, run = MeasureSpec(extractor=f"dinov2-small:{path}"), tmp_path / "run"
    run.mkdir()
    check_recorded(run, measure)  # nothing is recorded yet
    record = {"figures": {"FD[dinov2-small]": 1.0}, "notes": {"extractor_sha256": sha256_of(path)}}
    (run / "measures.json").write_text(json.dumps(record))
    check_recorded(run, measure)
    check_recorded(run, MeasureSpec())
    check_recorded(run, MeasureSpec(extractor="mnist-cnn"))  # another name is another figure
    save_file({**weights, "norm.bias": weights["norm.bias"] + 1}, path)
    with pytest.raises(DataError, match="was made by other weights"):
        check_recorded(run, measure)
    (run / "measures.json").write_text("{")
    check_recorded(run, measure)


def test_colour_networks_accept_grey_data_and_nothing_stranger(tiny):
    from renorm.data.fields import Fields

    measure = MeasureSpec(extractor=f"dinov2-small:{tiny[0]}")

    def pictures(channels):
        return Fields(torch.zeros(2, channels, 8, 8, dtype=torch.uint8), Lattice((8, 8), channels=channels))

    check_measurable(measure, pictures(1))
    check_measurable(measure, pictures(3))
    with pytest.raises(RecipeError, match="channel"):
        check_measurable(measure, pictures(2))
    assert features.PRETRAINED is pretrained.PRETRAINED
