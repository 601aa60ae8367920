"""Filling in: the hidden sites of images, given those that are seen."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renorm.tokens.codebooks.codebook import Codebook
from renorm.tokens.trees.evidence import VirtualEvidence
from renorm.tokens.trees.tree import TreeLaw

__all__ = ["complete"]

_ROUNDS = 4  # guesses, where reading the seen sites needs one of the hidden ones
_BYTES = 64 * 2**20  # of what is known of the tokens of some images


def complete(
    codebook: Codebook,
    law: TreeLaw,
    images: Float[np.ndarray, "number channel height width"],
    seen: Bool[np.ndarray, "number height width"],
    *,
    generator: torch.Generator | None = None,
) -> Float[np.ndarray, "number channel height width"]:
    r"""Pictures of a draw, or of the likeliest, of the tokens given what is seen.

    $$ p(s, z \mid x_S) \propto p(s, z) \prod_{\text{whole}} [z_p = z_p(x)] \prod_{\text{part}} e^{\ell_p(z_p)} $$

    over windows p that are seen wholly or in part; $\ell$ is the codebook's, see ``WindowCodebook.match``. A codebook
    that moves or ranks all sites first (straightening, equalising) reads a guess of the hidden ones: first the mean
    image, then the likeliest completion, four times.

    Args:
        codebook: From images to tokens.
        law: Of the tokens.
        images: In [0, 1]; nothing is read at hidden sites.
        seen: Sites that are to be believed.
        generator: Draws the completion; without it the likeliest one is taken.

    Returns:
        Pictures of all sites, the seen ones as their tokens show them.
    """
    size = max(1, _BYTES // int(4 * codebook.sizes.sum()))
    parts = [slice(start, start + size) for start in range(0, len(images), size)]
    return np.concatenate([_complete(codebook, law, images[part], seen[part], generator) for part in parts])


def _complete(
    codebook: Codebook, law: TreeLaw, images: np.ndarray, seen: np.ndarray, generator: torch.Generator | None
) -> np.ndarray:
    filled = codebook.decode(np.full((len(images), len(codebook.sizes)), -1))
    rounds = _ROUNDS if codebook.guesses else 1
    for turn in range(rounds):
        glimpse = codebook.match(np.where(seen[:, None], images, filled), seen)
        virtual = VirtualEvidence(law.tree.leaves[glimpse.places], torch.from_numpy(glimpse.log).to(law.root.dtype))
        states = _explained(law, torch.from_numpy(glimpse.tokens), virtual, generator if turn == rounds - 1 else None)
        filled = codebook.decode(states[:, torch.from_numpy(law.tree.leaves)].numpy())
        if glimpse.pose is not None:
            filled = glimpse.pose.undo(filled)
    return filled


def _explained(law: TreeLaw, tokens: Tensor, virtual: VirtualEvidence, generator: torch.Generator | None) -> Tensor:
    known = virtual if len(virtual.nodes) else None
    if generator is None:
        return law.most_probable(law.observe(tokens), known)
    return law.sample(law.observe(tokens), known, generator=generator)
