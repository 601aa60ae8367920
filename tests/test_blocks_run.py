"""A block-spin rule from the command line: learned, judged beside fixed ones, kept; mistakes are one line."""

import json

import numpy as np
import pytest
import torch

from renorm.cli import main
from renorm.coarse.block_spin import Decimation, Majority
from renorm.errors import CheckpointError
from renorm.recipes.blocks_run import BlocksSpec, _majority, information_kept, load_rule, ratio, signs

FAST = ["--set", "data.number=400", "--steps", "60", "--json"]


def out_of(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_rule_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "rule"
    code, text, _ = out_of(capsys, "blocks", "ising16", "--size", 4, *FAST, "--out", out)
    told = json.loads(text)
    assert code == 0
    assert told["information_learned"] > told["information_decimation"] > 0  # a sum tells more than a site
    assert told["information_majority"] > told["information_decimation"]
    assert len(told["filter"]) == 16
    assert sum(told["filter"]) > 0  # up stays up
    rule = load_rule(out)
    with np.load(out / "coarse.npz") as arrays:
        fields = torch.from_numpy(arrays["fields"])
        assert torch.equal(rule.coarsen(fields), torch.from_numpy(arrays["learned"]))
        spins = fields.sign()
        assert np.array_equal(arrays["decimation"], Decimation(4).coarsen(spins).numpy())
    assert (out / "blocks.png").is_file()
    assert out_of(capsys, "blocks", "ising16", "--size", 4, *FAST, "--out", out)[0] == 0  # the same folder again


def test_a_rule_of_a_chain_has_no_picture(tmp_path, capsys):
    changes = ["--set", "data.shape=[16]", *FAST, "--out", tmp_path / "ring"]
    assert out_of(capsys, "blocks", "wells32", *changes)[0] == 0
    assert not (tmp_path / "ring" / "blocks.png").exists()
    assert load_rule(tmp_path / "ring").dim == 1


def test_the_majority_is_the_librarys_and_ties_tip_no_balance():
    g = torch.Generator().manual_seed(0)
    spins = 2.0 * torch.randint(2, (200, 1, 8, 8), generator=g) - 1
    assert torch.equal(_majority(spins, 2), Majority(2).coarsen(spins))
    assert _majority(torch.tensor([[[0.5, -0.2, -3.0, 1.0]]]), 2).tolist() == [[[1.0, -1.0]]]

    def told(to):
        around = {"buffer": 0, "reach": 1, "seed": 0}
        return information_kept(lambda x: signs(to(x)), 2, spins[:100], spins[100:], **around)

    one, two = told(Decimation(2).coarsen), told(lambda x: Decimation(2).coarsen(-x))  # as good upside down
    gain = ratio(one, two)
    assert abs(float(one.information.value - two.information.value)) < 0.02
    assert float(gain.error) > 0
    assert float(one.information.value) < 0.02  # nothing is told of independent spins


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["photos"], "data.boundary = 'periodic'"),
        (["ising16", "--size", "1"], "--size must be >= 2"),
        (["ising16", "--size", "5"], "multiple of 5 sites"),
        (["ising16", "--set", "fit.steps=3"], "--set changes data here"),
        (["protein"], "no fields to cut into blocks"),
        (["nowhere"], "unknown recipe"),
        (["ising16", "--reach", "9"], "needs axes of 22 sites"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, arguments, match):
    few = [] if "fit.steps=3" in arguments or arguments[0] in ("photos", "protein") else ["--set", "data.number=40"]
    code, _, said = out_of(capsys, "blocks", *arguments, *few, "--out", tmp_path / "out")
    assert code == 2
    assert match in said
    assert "Traceback" not in said


def test_folders_of_others_are_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").touch()
    code, _, said = out_of(capsys, "blocks", "ising16", *FAST, "--out", tmp_path)
    assert (code, "holds something else" in said) == (2, True)
    with pytest.raises(CheckpointError, match="holds no rule"):
        load_rule(tmp_path)
    (tmp_path / "rule.toml").write_text("size = 'four'")
    with pytest.raises(CheckpointError, match="holds no rule"):
        load_rule(tmp_path)
    for wrong in ({"size": 1}, {"buffer": -1}, {"reach": 0}, {"steps": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=r"must be"):
            BlocksSpec(**wrong)
