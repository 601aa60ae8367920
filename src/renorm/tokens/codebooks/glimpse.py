"""What images of which some sites are hidden say of their tokens."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from renorm.tokens.codebooks.straighten import Pose

__all__ = ["Glimpse"]


@dataclass(frozen=True, eq=False)
class Glimpse:
    """Tokens that are seen, and how well each token fits what is seen where only a part is.

    Attributes:
        tokens: -1 where not all sites of a token are seen.
        places: Positions of which some images show a part.
        log: Log likelihood, in nats, of the seen part of each of ``places`` by token; 0 where there is nothing to say.
        pose: Where the codebook moved the images, if it did.
    """

    tokens: Int64[np.ndarray, "number positions"]
    places: Int64[np.ndarray, " places"]
    log: Float32[np.ndarray, "number places tokens"]
    pose: Pose | None = None

    @classmethod
    def whole(cls, tokens: Int64[np.ndarray, "number positions"]) -> "Glimpse":
        """Nothing but tokens that are seen wholly or not at all."""
        return cls(tokens, np.empty(0, np.int64), np.empty((len(tokens), 0, 1), np.float32))
