"""Models that have a name, as values of one class.

>>> from renorm.tokens.token_hierarchy import TokenHierarchy
>>> model = TokenHierarchy.of(lite())
>>> model.law.share
'all'
"""

from typing import Literal

from renorm.tokens.spec import (
    ExemplarSpec,
    HiddenTreeSpec,
    HierarchySpec,
    PyramidSpec,
    RetinaSpec,
    StyleSpec,
    TokensSpec,
    ValueSpec,
    WindowSpec,
)

__all__ = [
    "best_product",
    "few_labels",
    "grey_tree",
    "lite",
    "patches",
    "pyramid",
    "rgm",
    "rgm_paper",
    "small",
    "straight_styles",
    "styles",
]


def lite(*, share: Literal["all", "places", "none"] = "all", seed: int = 42) -> HierarchySpec:
    """ "Renormalization, Lite": 4 x 4 patches of a 16 x 16 image, 256 tokens, 64 supertokens of 2 x 2 tokens.

    Args:
        share: ``"all"``: one table of supertokens for a class and one of tokens for a supertoken, wherever they stand,
            as its author has it; ``"places"``: a table for each block and one for each place in a block.
        seed: Of both clusterings.

    Source: Veit Heller, "Renormalization, Lite" (2026).
    """
    patches = WindowSpec(
        window=4,
        stride=4,
        tokens=256,
        floor=0.0,
        margin=1e-6,
        background=0.0,
        ink=0.10,
        method="lloyd",
        iterations=25,
        sample=0,
        components=0,
    )
    blocks = PyramidSpec(levels=1, parents=(64,), share=share, start="samples", standardise=True, components=0)
    return HierarchySpec(patches, blocks, seed=seed)


def pyramid(parents: int = 2048, tokens: int = 256) -> HierarchySpec:
    """Blocks upon blocks of 2 x 2, from the 4 x 4 patches of a 32 x 32 image up to one token."""
    patches = WindowSpec(window=4, stride=4, tokens=tokens, components=0)
    return HierarchySpec(patches, PyramidSpec(levels=3, parents=(parents,), concentration=0.5, backoff=10.0))


def styles(number: int = 48, tokens: int = 1024) -> HierarchySpec:
    """Overlapping windows of 8 x 8 sites and latent styles of each class."""
    return HierarchySpec(WindowSpec(window=8, stride=2, tokens=tokens), StyleSpec(styles=number), temper=0.05)


def straight_styles(number: int = 24, tokens: int = 1024) -> HierarchySpec:
    """The same on digits that are sheared upright first: the quick classifier."""
    windows = WindowSpec(window=8, stride=2, tokens=tokens, straighten=True)
    return HierarchySpec(windows, StyleSpec(styles=number), temper=0.05)


def few_labels() -> HierarchySpec:
    """The quick classifier with fewer styles, for some labels and many images without."""
    return straight_styles(16)


def best_product() -> TokensSpec:
    """Three views of a digit: the best classifier by counting that we know."""
    views = (
        (WindowSpec(window=8, stride=2, tokens=2048, straighten=True), StyleSpec(styles=24)),
        (WindowSpec(window=6, stride=2, tokens=1024, straighten=True), StyleSpec(styles=32)),
        (WindowSpec(window=8, stride=2, tokens=1024), StyleSpec(styles=48)),
    )
    return TokensSpec(tuple(HierarchySpec(codebook, law, temper=0.017) for codebook, law in views))


def small() -> HierarchySpec:
    """For images of 8 x 8 sites."""
    return HierarchySpec(WindowSpec(window=4, stride=1, tokens=256, components=0), StyleSpec(styles=8), temper=0.05)


def rgm(*, straighten: bool = False) -> HierarchySpec:
    """A tree of 130 exemplars above an SVD retina, learned in sweeps: our renormalising generative model."""
    return HierarchySpec(RetinaSpec(straighten=straighten), ExemplarSpec())


def rgm_paper() -> HierarchySpec:
    """The same as its authors have it: first images as exemplars, gate and forgetting, image by image.

    Source: Friston et al. (2024), arXiv:2407.20292, and SPM's demonstration of it.
    """
    law = ExemplarSpec(
        choose="first",
        edges=(),
        parts=0,
        learn="in-order",
        neighbour=0.0,
        token_backoff=0.0,
        part_backoff=0.0,
        class_backoff=0.0,
        gate=512.0,
        horizon=512.0,
    )
    return HierarchySpec(RetinaSpec(), law)


def patches() -> HierarchySpec:
    """Patches of 4 x 4 sites and blocks upon blocks of them: few bits for much of a picture, the lossy codec."""
    codebook = WindowSpec(window=4, stride=4, tokens=512, floor=1.0, components=0)
    return HierarchySpec(codebook, PyramidSpec(levels=3, parents=(1024,), concentration=0.5, backoff=10.0))


def grey_tree(states: int = 128, epochs: float = 2.0) -> HierarchySpec:
    """A tree of hidden tokens above the grey values of bytes: the law of the lossless codec."""
    return HierarchySpec(ValueSpec(), HiddenTreeSpec(states=states, epochs=epochs, floor=0.02), temper=0.0)
