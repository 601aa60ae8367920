"""The CIFAR ResNet: published counts of parameters, published accuracy where weights and images are."""

import pytest
import torch
from safetensors.torch import load_file

from renorm.data import DataSpec, load
from renorm.nn.resnet import CifarResNet


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018)])
def test_count_of_parameters_is_the_published_one(depth, parameters):
    """0.27 and 0.85 million in He et al.; the exact counts follow from layers of 16, 32, 64 planes."""
    assert sum(p.numel() for p in CifarResNet(depth).parameters()) == parameters


def test_depth_must_fit_the_three_stages():
    with pytest.raises(ValueError, match="depth must be 6 n"):
        CifarResNet(21)


def test_colours_are_standardised_inside():
    net = CifarResNet(8).eval()
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32)
    seen = []
    net.conv1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(mean)
    net(mean + torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))
    torch.testing.assert_close(seen[0], torch.zeros_like(mean), rtol=0, atol=1e-6)
    torch.testing.assert_close(seen[1], torch.ones_like(mean), rtol=0, atol=1e-5)


def test_accuracy_on_cifar10_is_the_published_one(shared_data):
    """91.73 % is published for this file; 2000 images have a standard error of 0.6 %."""
    weights = shared_data / "weights" / "cifar10_resnet20.safetensors"
    if not weights.is_file() or not (shared_data / "cifar10" / "test.npz").is_file():
        pytest.skip("needs CIFAR-10 and weights/cifar10_resnet20.safetensors in the folder of real data")
    fields = load(DataSpec("cifar10", limit=2000, value_range=(0.0, 1.0), labels=True), "test")
    net = CifarResNet(20).eval()
    net.load_state_dict(load_file(weights))
    with torch.no_grad():
        guess = torch.cat([net(fields.batch(i)).argmax(1) for i in torch.arange(2000).split(250)])
    accuracy = (guess == fields.labels).float().mean().item()
    assert 0.9173 - 3 * 0.0062 < accuracy < 0.9173 + 3 * 0.0062
