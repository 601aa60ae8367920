"""Products of token hierarchies: several views of an image, one posterior."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from renorm.errors import CheckpointError, DataError
from renorm.lattice import Lattice
from renorm.model import Grade, Level, Pyramid
from renorm.tokens.spec import HierarchySpec, TokensSpec
from renorm.tokens.token_hierarchy import TokenHierarchy

__all__ = ["TokenProduct"]


class TokenProduct(ClassifierMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    r"""Token hierarchies that vote for the class, each by its own tokens.

    $$ \ln p(c \mid x) = \ln p(c) + \sum_m \tau_m \ln p_m(z_m \mid c) + \text{const} $$

    The last member is the density: it draws, codes, completes and weighs images.

    Args:
        members: A spec for each hierarchy; $\tau_m$ is its ``temper``.
        shape, value_range: See ``TokenHierarchy``.
        seed: Added to the seed of each member.

    Attributes:
        members_: The fitted hierarchies.
        classes_: Labels of the classes, sorted.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> from renorm.tokens.spec import StyleSpec, WindowSpec
        >>> views = [WindowSpec(window=w, stride=1, tokens=48, components=0) for w in (3, 5)]
        >>> members = tuple(HierarchySpec(view, StyleSpec(styles=2)) for view in views)
        >>> x, y = load_digits(return_X_y=True)
        >>> model = TokenProduct(members, value_range=(0.0, 16.0)).fit(x[:1000], y[:1000])
        >>> bool(model.score(x[1000:], y[1000:]) > 0.9)
        True
    """

    def __init__(
        self,
        members: Sequence[HierarchySpec] = (HierarchySpec(),),
        *,
        shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        self.members = members
        self.shape = shape
        self.value_range = value_range
        self.seed = seed

    @classmethod
    def of(cls, spec: TokensSpec, **more: Any) -> "TokenProduct":
        """The product of a spec; ``more`` are ``shape`` and ``value_range``."""
        return cls(spec.members, seed=spec.seed, **more)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, condition: Any = None) -> "TokenProduct":
        """Learn every member, see ``TokenHierarchy.fit``."""
        self.members_ = [self._member(spec) for spec in self.members]
        for member in self.members_:
            member.fit(X, condition if y is None else y, sample_weight)
        return self._joined()

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None) -> "TokenProduct":
        """Count more images in every member."""
        if not hasattr(self, "members_"):
            self.members_ = [self._member(spec) for spec in self.members]
        for member in self.members_:
            member.partial_fit(X, y, classes, sample_weight)
        return self._joined()

    def merge(self, other: "TokenProduct") -> "TokenProduct":
        """Add the counts of another product, member by member."""
        if len(self.members_) != len(other.members_):
            raise DataError(f"only equal products add up, got {len(self.members_)} and {len(other.members_)} members")
        for mine, theirs in zip(self.members_, other.members_, strict=True):
            mine.merge(theirs)
        return self

    def predict_log_joint(self, X: Any) -> Float[np.ndarray, "number classes"]:
        r"""$\ln p(c) + \sum_m \tau_m \ln p_m(z_m \mid c)$, in nats."""
        check_is_fitted(self)
        prior = self.density_.law_.root.double().log().numpy()
        votes = [member.predict_log_joint(X) - member.law_.root.double().log().numpy() for member in self.members_]
        return np.asarray(prior + np.sum(votes, axis=0))

    def predict_proba(self, X: Any) -> Float[np.ndarray, "number classes"]:
        """Posterior of the classes."""
        return torch.from_numpy(self.predict_log_joint(X)).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class."""
        return np.asarray(self.classes_[self.predict_log_joint(X).argmax(-1)])

    @property
    def density_(self) -> TokenHierarchy:
        """The member that draws, codes and weighs."""
        check_is_fitted(self)
        return self.members_[-1]

    # -- the density's, by the hallway's names -----------------------------------------------------------------------

    @property
    def lossless(self) -> bool:
        """Whether the density's tokens give an image back exactly."""
        return self.density_.lossless

    @property
    def domain(self) -> Lattice:
        """Where a field lives."""
        return self.density_.domain

    @property
    def levels(self) -> Sequence[Level]:
        """Of the density, finest first."""
        return self.density_.levels

    @property
    def grade(self) -> Grade:
        """Exact, on the density's tokens."""
        return self.density_.grade

    def sample(
        self, num: int, *, condition: Tensor | None = None, generator: torch.Generator, level: int = 0
    ) -> Tensor:
        """See ``TokenHierarchy.sample``."""
        return self.density_.sample(num, condition=condition, generator=generator, level=level)

    def coarsen(self, x: Tensor, level: int, *, generator: torch.Generator | None = None) -> Tensor:
        """See ``TokenHierarchy.coarsen``."""
        return self.density_.coarsen(x, level, generator=generator)

    def refine(
        self,
        coarse: Tensor,
        *,
        level: int,
        to: int = 0,
        condition: Tensor | None = None,
        generator: torch.Generator,
    ) -> Tensor:
        """See ``TokenHierarchy.refine``."""
        return self.density_.refine(coarse, level=level, to=to, condition=condition, generator=generator)

    def render(self, y: Tensor, level: int) -> Tensor:
        """See ``TokenHierarchy.render``."""
        return self.density_.render(y, level)

    def encode(self, x: Tensor) -> Pyramid:
        """See ``TokenHierarchy.encode``."""
        return self.density_.encode(x)

    def decode(self, pyramid: Pyramid) -> Tensor:
        """See ``TokenHierarchy.decode``."""
        return self.density_.decode(pyramid)

    def log_prob(self, x: Tensor, *, condition: Tensor | None = None, per_level: bool = False) -> Tensor:
        """See ``TokenHierarchy.log_prob``."""
        return self.density_.log_prob(x, condition=condition, per_level=per_level)

    def score_samples(self, X: Any) -> Float[np.ndarray, " number"]:
        """See ``TokenHierarchy.score_samples``."""
        return self.density_.score_samples(X)

    def in_paint(self, X: Any, seen: np.ndarray, *, generator: torch.Generator | None = None) -> np.ndarray:
        """See ``TokenHierarchy.in_paint``."""
        return self.density_.in_paint(X, seen, generator=generator)

    def transform(self, X: Any, level: int = 1) -> np.ndarray:
        """See ``TokenHierarchy.transform``."""
        return self.density_.transform(X, level)

    def inverse_transform(self, X: Any, level: int = 1) -> np.ndarray:
        """See ``TokenHierarchy.inverse_transform``."""
        return self.density_.inverse_transform(X, level)

    # -- disk --------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write each member into a folder of its own, ``member0``, ``member1``, ..."""
        check_is_fitted(self)
        for index, member in enumerate(self.members_):
            member.save(Path(path) / f"member{index}")

    @classmethod
    def load(cls, path: Path) -> "TokenProduct":
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: If the folder holds no product of hierarchies.
        """
        folders = sorted(Path(path).glob("member*"), key=lambda folder: int(folder.name.removeprefix("member")))
        if not folders:
            raise CheckpointError(f"{path} holds no token hierarchies (there is no member0)")
        members = [TokenHierarchy.load(folder) for folder in folders]
        model = cls(tuple(member.spec for member in members), value_range=members[-1].value_range)
        model.members_ = members
        return model._joined()

    def _member(self, spec: HierarchySpec) -> TokenHierarchy:
        member = TokenHierarchy.of(spec, shape=self.shape, value_range=self.value_range)
        member.seed += self.seed
        return member

    def _joined(self) -> "TokenProduct":
        self.classes_ = self.density_.classes_
        self.n_features_in_ = self.density_.n_features_in_
        return self
