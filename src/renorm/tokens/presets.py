"""Models that have a name, as values of one class.

    >>> from renorm.tokens.token_hierarchy import TokenHierarchy
    >>> model = TokenHierarchy.of(lite())
    >>> model.law.share
    'all'
"""

from typing import Literal

from renorm.tokens.spec import HierarchySpec, PyramidSpec, StyleSpec, WindowSpec

__all__ = ["dense_windows", "lite", "styles"]


def lite(*, share: Literal["all", "places", "none"] = "all", seed: int = 42) -> HierarchySpec:
    """"Renormalization, Lite": 4 x 4 patches of a 16 x 16 image, 256 tokens, 64 supertokens of 2 x 2 tokens.

    Args:
        share: ``"all"``: one table of supertokens for a class and one of tokens for a supertoken, wherever they stand, as
            its author has it; ``"places"``: a table for each block and one for each place in a block.
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
    return HierarchySpec(patches, PyramidSpec(levels=1, parents=(64,), share=share, start="samples"), seed=seed)


def dense_windows(window: int = 10, stride: int = 3, tokens: int = 1024) -> HierarchySpec:
    """Overlapping windows, each a vote: p(token | class) at every place, without anything in between."""
    return HierarchySpec(
        WindowSpec(window=window, stride=stride, tokens=tokens), PyramidSpec(levels=0, concentration=0.5, backoff=10.0)
    )


def styles(number: int = 48, window: int = 10, stride: int = 3, tokens: int = 1024) -> HierarchySpec:
    """The same with latent styles of each class."""
    return HierarchySpec(WindowSpec(window=window, stride=stride, tokens=tokens), StyleSpec(styles=number))
