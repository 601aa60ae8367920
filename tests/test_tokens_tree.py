"""Laws on trees: every pass against enumeration of all joint states, autograd and closed forms."""

import itertools
import math

import numpy as np
import pytest
import torch

from conftest import TOLERANCE
from renorm.errors import DataError, RecipeError
from renorm.tokens.trees import inference
from renorm.tokens.trees.evidence import VirtualEvidence
from renorm.tokens.trees.tree import Tree, TreeLaw


def random_law(tree, dtype, *, seed=0, zeros=0.0):
    """Random tables; a share of the entries exactly 0 (never a whole row)."""
    generator = torch.Generator().manual_seed(seed)

    def rows(*shape):
        table = torch.rand(shape, generator=generator, dtype=dtype) ** 3 + 1e-3
        dead = torch.rand(shape, generator=generator) < zeros
        dead.scatter_(-1, table.argmax(-1, keepdim=True), False)
        table = torch.where(dead, 0.0, table)
        return table / table.sum(-1, keepdim=True)

    return TreeLaw(tree, rows(int(tree.states[0])), [rows(layer.tables, *layer.shape) for layer in tree.layers])


def joint(law):
    """All joint states (in lexicographic order) and their probabilities, by the definition of the law."""
    tree = law.tree
    table = {
        node: stack[index]
        for layer, stack in zip(tree.layers, law.tables, strict=True)
        for node, index in zip(layer.nodes.tolist(), layer.table.tolist(), strict=True)
    }
    states = torch.tensor(list(itertools.product(*(range(k) for k in tree.states.tolist()))))
    p = law.root[states[:, 0]]
    for node in range(1, len(tree)):
        p = p * table[node][states[:, tree.parent[node]], states[:, node]]
    return states, p


def agree(states, seen):
    return ((seen < 0) | (states == seen)).all(1)


def uneven():
    """Uneven branching, two numbers of states at one depth, childless latents, inner nodes and leaves tied."""
    parent = np.array([-1, 0, 0, 0, 1, 1, 2, 2, 2, 3, 1])
    states = np.array([2, 3, 3, 2, 2, 2, 2, 2, 2, 3, 3])
    tie = np.array([0, 1, 1, 2, 3, 4, 3, 5, 4, 6, 7])
    return Tree(parent, states, leaves=np.array([4, 5, 6, 7, 8, 9]), tie=tie)


def chain():
    parent = np.array([-1, 0, 1, 2, 0, 1, 2, 3])
    return Tree(parent, np.array([2, 3, 2, 3, 2, 2, 3, 2]), leaves=np.array([7, 6, 5, 4]))


def evidence(tree, batch=12, seed=3):
    """Leaves mostly seen, some inner nodes clamped, the first image wholly hidden, the second wholly seen."""
    rng = np.random.default_rng(seed)
    seen = rng.integers(0, tree.states, (batch, len(tree)))
    hide = rng.random((batch, len(tree))) < np.where(np.isin(np.arange(len(tree)), tree.leaves), 0.3, 0.8)
    hide[0], hide[1] = True, False
    return torch.from_numpy(np.where(hide, -1, seen))


CASES = [(uneven, 0.0), (uneven, 0.4), (chain, 0.0), (chain, 0.4)]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def case(request, dtype):
    make, zeros = request.param
    law = random_law(make(), dtype, seed=1, zeros=zeros)
    return law, evidence(law.tree), *joint(law)


def test_log_prob_is_the_sum_over_all_that_is_hidden(case, dtype):
    law, seen, states, p = case
    exact = torch.stack([p[agree(states, row)].sum() for row in seen])
    torch.testing.assert_close(law.log_prob(seen).exp(), exact, rtol=20 * TOLERANCE[dtype], atol=0)
    assert (law.log_prob(seen).isneginf() == (exact == 0)).all()
    assert law.log_prob(seen[:1]).item() == pytest.approx(0.0, abs=10 * TOLERANCE[dtype])


def test_root_log_prob_is_the_joint_with_the_root(case, dtype):
    law, seen, states, p = case
    exact = torch.stack(
        [torch.stack([p[agree(states, row) & (states[:, 0] == k)].sum() for k in range(2)]) for row in seen]
    )
    torch.testing.assert_close(law.root_log_prob(seen).exp(), exact, rtol=20 * TOLERANCE[dtype], atol=0)


def test_marginals_are_the_posterior_of_each_node(case, dtype):
    law, seen, states, p = case
    found = law.marginals(seen)
    for image, row in enumerate(seen):
        weight = p * agree(states, row)
        total = weight.sum()
        for node, count in enumerate(law.tree.states.tolist()):
            exact = torch.stack([weight[states[:, node] == k].sum() for k in range(count)])
            exact = exact / total if total > 0 else exact
            torch.testing.assert_close(found[node][image], exact, rtol=0, atol=20 * TOLERANCE[dtype])


def test_most_probable_is_the_best_of_all_joint_states(case, dtype):
    law, seen, states, p = case
    possible = ~law.log_prob(seen).isneginf()
    found = law.most_probable(seen[possible])
    for row, best in zip(seen[possible], found, strict=True):
        assert agree(best[None], row).all()
        reached = p[(states == best).all(1)].item()
        assert reached == pytest.approx(p[agree(states, row)].max().item(), rel=20 * TOLERANCE[dtype])


def known(law, seen, dtype):
    """Virtual evidence of some leaves and an inner node, all of two states, out of order; one state is excluded."""
    nodes = np.flatnonzero(law.tree.states == 2)[::2][::-1].copy()  # the root too
    assert nodes[-1] == 0
    log = torch.randn(len(seen), len(nodes), 2, generator=torch.Generator().manual_seed(5), dtype=dtype) * 3
    log[2, 0, 1] = -math.inf
    return VirtualEvidence(nodes, log)


def weighed(states, p, row, virtual, image):
    for column, node in enumerate(virtual.nodes.tolist()):
        if row[node] < 0:  # what is seen itself needs no likelihood
            p = p * virtual.log[image, column, states[:, node]].exp()
    return p * agree(states, row)


def test_virtual_evidence_weighs_states(case, dtype):
    law, seen, states, p = case
    virtual = known(law, seen, dtype)
    found = law.root_log_prob(seen, virtual).exp()
    for image, row in enumerate(seen):
        weight = weighed(states, p, row, virtual, image)
        exact = torch.stack([weight[states[:, 0] == k].sum() for k in range(2)])
        torch.testing.assert_close(found[image], exact, rtol=50 * TOLERANCE[dtype], atol=0)


def test_most_probable_and_draws_heed_virtual_evidence(case, dtype):
    law, seen, states, p = case
    virtual = known(law, seen, dtype)
    possible = torch.tensor([bool(weighed(states, p, row, virtual, k).sum() > 0) for k, row in enumerate(seen)])
    virtual = VirtualEvidence(virtual.nodes, virtual.log[possible])
    rows = seen[possible]
    found = law.most_probable(rows, virtual)
    for image, (row, best) in enumerate(zip(rows, found, strict=True)):
        weight = weighed(states, p, row, virtual, image)
        assert weight[(states == best).all(1)].item() == pytest.approx(weight.max().item(), rel=50 * TOLERANCE[dtype])
    number = 3000
    many = VirtualEvidence(virtual.nodes, virtual.log[:1].expand(number, -1, -1))
    drawn = law.sample(rows[:1].expand(number, -1), many, generator=torch.Generator().manual_seed(0))
    weight = weighed(states, p, rows[0], virtual, 0)
    for node in range(1, len(law.tree)):
        exact = (weight * (states[:, node] == 0)).sum() / weight.sum()
        assert abs((drawn[:, node] == 0).double().mean() - exact) < 4 * math.sqrt(0.25 / number)


def test_virtual_evidence_must_fit():
    law = random_law(uneven(), torch.float64)
    seen = evidence(law.tree)
    with pytest.raises(DataError, match=r"shape \(12, 1, 2\).* got \(12, 1, 3\)"):
        law.most_probable(seen, VirtualEvidence(np.array([4]), torch.zeros(12, 1, 3, dtype=torch.float64)))
    with pytest.raises(DataError, match=r"speaks once of each node"):
        law.most_probable(seen, VirtualEvidence(np.array([4, 4]), torch.zeros(12, 2, 2)))
    with pytest.raises(DataError, match=r"equally many states, got .* \[2, 3\] states"):
        law.most_probable(seen, VirtualEvidence(np.array([4, 9]), torch.zeros(12, 2, 2, dtype=torch.float64)))


def test_expected_counts_are_sums_over_the_posterior(case, dtype):
    law, seen, states, p = case
    weight = torch.linspace(0.5, 2.0, len(seen), dtype=dtype)
    root, tables, log_prob = law.expected_counts(seen, weight)
    exact = [torch.zeros_like(stack) for stack in law.tables]
    exact_root, exact_log_prob = torch.zeros_like(law.root), 0.0
    for row, w in zip(seen, weight, strict=True):
        each = p * agree(states, row)
        if each.sum() == 0:
            exact_log_prob = -math.inf
            continue
        exact_log_prob += float(w * each.sum().log())
        each = w * each / each.sum()
        exact_root.index_add_(0, states[:, 0], each)
        for layer, stack in zip(law.tree.layers, exact, strict=True):
            for node, parent, table in zip(layer.nodes, layer.parents, layer.table, strict=True):
                stack.index_put_((torch.tensor(table), states[:, parent], states[:, node]), each, accumulate=True)
    for got, want in zip((root, *tables), (exact_root, *exact), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=100 * TOLERANCE[dtype])
    assert log_prob == pytest.approx(exact_log_prob, rel=20 * TOLERANCE[dtype])


def test_expected_counts_are_the_gradient_of_log_prob(case):
    law, seen, *_ = case
    seen = seen[~law.log_prob(seen).isneginf()]
    tables = [table.log().requires_grad_() for table in (law.root, *law.tables)]
    root, *stacks = [table.exp() for table in tables]
    TreeLaw(law.tree, root, stacks).log_prob(seen).sum().backward()
    counts = law.expected_counts(seen)
    for table, want in zip(tables, (counts.root, *counts.tables), strict=True):
        torch.testing.assert_close(table.grad, want, rtol=0, atol=1e-4 if want.dtype == torch.float32 else 1e-11)


def test_gradients_by_the_tables_are_numbers_where_tables_are_zero(case):
    law, seen, *_ = case
    seen = seen[~law.log_prob(seen).isneginf()]
    stacks = [table.clone().requires_grad_() for table in law.tables]
    TreeLaw(law.tree, law.root, stacks).log_prob(seen).sum().backward()
    assert all(stack.grad.isfinite().all() for stack in stacks)


def test_draws_follow_the_posterior(case):
    law, _, states, p = case
    seen = torch.full((1, len(law.tree)), -1)
    seen[0, law.tree.leaves[:2]] = states[p.argmax(), law.tree.leaves[:2]]
    number = 20_000
    drawn = law.sample(seen.expand(number, -1), generator=torch.Generator().manual_seed(0))
    assert agree(drawn, seen).all()
    base = torch.tensor(law.tree.states.tolist()).flip(0).cumprod(0).flip(0)
    code = (drawn * torch.cat([base[1:], torch.ones(1, dtype=torch.long)])).sum(1)
    frequency = torch.bincount(code, minlength=len(p)).double() / number
    exact = (p * agree(states, seen)).double()
    exact /= exact.sum()
    assert (frequency[exact == 0] == 0).all()
    error = (exact * (1 - exact) / number).sqrt()
    likely = exact * number > 25
    assert ((frequency - exact).abs()[likely] < 5 * error[likely]).all()


def test_a_number_by_hand():
    tree = Tree(np.array([-1, 0, 0]), np.array([2, 2, 2]), leaves=np.array([1, 2]), tie=np.array([0, 1, 1]))
    law = TreeLaw(tree, torch.tensor([0.25, 0.75]), [torch.tensor([[[0.9, 0.1], [0.2, 0.8]]])])
    seen = law.observe(torch.tensor([[0, 1], [0, -1]]))
    # 0.25 * 0.9 * 0.1 + 0.75 * 0.2 * 0.8 and 0.25 * 0.9 + 0.75 * 0.2
    torch.testing.assert_close(law.log_prob(seen).exp(), torch.tensor([0.1425, 0.375]))
    counts = law.expected_counts(seen[1:])
    torch.testing.assert_close(counts.root, torch.tensor([0.6, 0.4]))
    # seen leaf: 0.6, 0.4 in column 0; hidden leaf: 0.6 * (0.9, 0.1), 0.4 * (0.2, 0.8)
    torch.testing.assert_close(counts.tables[0], torch.tensor([[[1.14, 0.06], [0.48, 0.32]]]))


def test_evidence_far_from_its_clamped_class_keeps_its_digits(dtype):
    """Ten leaves at odds of 1e-20 each: 460 nats, beyond the range of float32 in one product."""
    odds = 1e-20
    parent = np.array([-1, 0, *[1] * 10])
    tree = Tree(parent, np.full(12, 2), leaves=np.arange(2, 12))
    style = torch.eye(2, dtype=dtype)[None]
    leaf = torch.tensor([[1.0, odds], [odds, 1.0]], dtype=dtype).expand(10, 2, 2).contiguous()
    law = TreeLaw(tree, torch.full((2,), 0.5, dtype=dtype), [style, leaf])
    seen = law.observe(torch.zeros(1, 10, dtype=torch.int64))
    exact = torch.tensor([[0.0, 10 * math.log(odds)]], dtype=dtype) + math.log(0.5)
    torch.testing.assert_close(law.root_log_prob(seen), exact, rtol=TOLERANCE[dtype], atol=1e-6)
    seen[0, 0] = 1
    counts = law.expected_counts(seen, torch.full((1,), 3.0, dtype=dtype))
    torch.testing.assert_close(counts.tables[0][0], torch.tensor([[0.0, 0.0], [0.0, 3.0]], dtype=dtype))
    torch.testing.assert_close(law.marginals(seen)[1], torch.tensor([[0.0, 1.0]], dtype=dtype))
    assert law.sample(seen, generator=torch.Generator())[0, 1] == law.most_probable(seen)[0, 1] == 1


def test_float32_keeps_the_digits_of_a_deep_tree():
    rng = np.random.default_rng(0)
    parent = np.concatenate([[-1], [max(0, k - rng.integers(1, 4)) for k in range(1, 300)], np.arange(300)])
    tree = Tree(parent, np.array([8] * 300 + [50] * 300), leaves=np.arange(300, 600))
    law = random_law(tree, torch.float64)
    low = TreeLaw(tree, law.root.float(), [table.float() for table in law.tables])
    seen = law.observe(torch.from_numpy(rng.integers(0, 50, (6, 300))))
    torch.testing.assert_close(low.log_prob(seen).double(), law.log_prob(seen), rtol=2e-6, atol=0)
    for a, b in zip(low.expected_counts(seen).tables, law.expected_counts(seen).tables, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-5)


def test_answers_do_not_depend_on_the_chunks(monkeypatch):
    law = random_law(uneven(), torch.float64, seed=2)
    seen = evidence(law.tree, batch=37)
    whole = law.log_prob(seen), law.expected_counts(seen), law.marginals(seen), law.most_probable(seen)
    monkeypatch.setattr(inference, "WORKING_BYTES", 5000)
    assert len(law._chunks(seen)) > 4
    torch.testing.assert_close(law.log_prob(seen), whole[0])
    torch.testing.assert_close(law.expected_counts(seen), whole[1])
    torch.testing.assert_close(law.marginals(seen), whole[2])
    torch.testing.assert_close(law.most_probable(seen), whole[3])


def test_counts_add_over_images_and_do_not_depend_on_their_order():
    law = random_law(uneven(), torch.float64, seed=2)
    seen = evidence(law.tree)
    whole, front, back = (law.expected_counts(part) for part in (seen, seen[:5].flip(0), seen[5:]))
    for a, b, c in zip(whole.tables, front.tables, back.tables, strict=True):
        torch.testing.assert_close(a, b + c)
    assert whole.log_prob == pytest.approx(front.log_prob + back.log_prob)
    assert float(whole.root.sum()) == pytest.approx(len(seen))


def test_a_root_alone_is_a_law():
    law = TreeLaw(Tree(np.array([-1]), np.array([3]), leaves=np.array([0])), torch.tensor([0.5, 0.5, 0.0]), [])
    torch.testing.assert_close(law.log_prob(torch.tensor([[-1], [1], [2]])).exp(), torch.tensor([1.0, 0.5, 0.0]))


def test_layers_hold_one_kind_one_shape_and_share_tables():
    tree = uneven()
    inner, other, childless, *leaves = tree.layers
    assert (inner.shape, inner.nodes.tolist(), inner.tables) == ((2, 3), [1, 2], 1) or other.nodes.tolist() == [1, 2]
    assert sorted(node for layer in tree.layers for node in layer.nodes.tolist()) == list(range(1, 11))
    assert childless.depth == 2
    assert all(layer.leaf for layer in (childless, *leaves))


@pytest.mark.parametrize(
    ("parent", "states", "leaves", "tie", "message"),
    [
        ([0, 0], [2, 2], [1], None, "must be its root"),
        ([-1, 2, 0], [2, 2, 2], [1], None, "got parent 2 for node 1"),
        ([-1, 0], [2, 0], [1], None, "at least one state"),
        ([-1, 0], [2, 2], [2], None, "leaves must be different nodes"),
        ([-1, 0, 0], [2, 2, 2], [1, 1], None, "leaves must be different nodes"),
        ([-1, 0], [2, 2], [1], [0], "got 1 values"),
        ([-1, 0, 0], [2, 2, 3], [1, 2], [0, 1, 1], "must agree in depth"),
    ],
)
def test_a_tree_refuses_what_is_none(parent, states, leaves, tie, message):
    arrays = [None if values is None else np.array(values) for values in (parent, states, leaves, tie)]
    with pytest.raises(RecipeError, match=message):
        Tree(*arrays)


def test_a_law_refuses_tables_that_do_not_fit():
    tree = Tree(np.array([-1, 0]), np.array([2, 2]), leaves=np.array([1]))
    half = torch.full((1, 2, 2), 0.5)
    with pytest.raises(RecipeError, match=r"shapes \[\(1, 2, 2\)\], got \[\(1, 2, 3\)\]"):
        TreeLaw(tree, torch.tensor([0.5, 0.5]), [torch.rand(1, 2, 3)])
    with pytest.raises(RecipeError, match="all be float32 or all float64"):
        TreeLaw(tree, torch.tensor([0.5, 0.5]), [half.double()])
    with pytest.raises(RecipeError, match="must be a distribution"):
        TreeLaw(tree, torch.tensor([0.5, 0.5]), [2 * half])
    with pytest.raises(RecipeError, match="must be a distribution"):
        TreeLaw(tree, torch.tensor([0.5, math.nan]), [half])


def test_a_law_refuses_evidence_that_does_not_fit():
    tree = Tree(np.array([-1, 0]), np.array([2, 2]), leaves=np.array([1]))
    law = TreeLaw(tree, torch.tensor([0.5, 0.5]), [torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])])
    with pytest.raises(DataError, match="got 2 at node 1 of image 0"):
        law.log_prob(torch.tensor([[-1, 2]]))
    with pytest.raises(DataError, match="one column for each of the 2 nodes, got 1"):
        law.log_prob(torch.tensor([[0]]))
    with pytest.raises(DataError, match="at least one image"):
        law.log_prob(torch.zeros((0, 2), dtype=torch.int64))
    with pytest.raises(DataError, match="one column for each of the 1 leaves, got 2"):
        law.observe(torch.tensor([[0, 1]]))
    impossible = torch.tensor([[-1, 1]])
    assert law.log_prob(impossible).item() == -math.inf
    with pytest.raises(DataError, match="evidence of probability 0"):
        law.most_probable(impossible)
    with pytest.raises(DataError, match="evidence of probability 0"):
        law.sample(impossible, generator=torch.Generator())
