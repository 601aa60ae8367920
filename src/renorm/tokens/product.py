"""Products of token hierarchies: several views of an image, one posterior."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from renorm.errors import CheckpointError, DataError, RecipeError
from renorm.fit.checkpoint import atomic
from renorm.lattice import Lattice
from renorm.model import Grade, Level, Pyramid
from renorm.spec import load_toml, to_toml
from renorm.tokens.spec import HierarchySpec, TokensSpec
from renorm.tokens.token_hierarchy import TokenHierarchy, image_tags

__all__ = ["TokenProduct"]


class TokenProduct(  # type: ignore[misc]
    ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    r"""Token hierarchies that vote for the class, each by its own tokens.

    $$ \ln p(c \mid x) = \ln p(c) + \sum_m \tau_m \ln p_m(z_m \mid c) + \text{const} $$

    Args:
        members: A spec for each hierarchy; $\tau_m$ is its ``temper``.
        draws: Index of the member that draws, completes, coarse-grains and refines.
        weighs: Index of the member that says how probable a field is, and codes it.
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
        draws: int = 0,
        weighs: int = 0,
        shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        self.members = members
        self.draws = draws
        self.weighs = weighs
        self.shape = shape
        self.value_range = value_range
        self.seed = seed

    @classmethod
    def of(cls, spec: TokensSpec, **more: Any) -> "TokenProduct":
        """The product of a spec; ``more`` are ``shape`` and ``value_range``."""
        return cls(spec.members, draws=spec.draws, weighs=spec.weighs, seed=spec.seed, **more)

    @property
    def spec(self) -> TokensSpec:
        """All values but those of the data."""
        return TokensSpec(tuple(self.members), self.draws, self.weighs, self.seed)

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, condition: Any = None) -> "TokenProduct":
        """Learn every member, see ``TokenHierarchy.fit``."""
        return self.fit_members(lambda index: self.member(index).fit(X, condition if y is None else y, sample_weight))

    def fit_members(self, fit: Callable[[int], TokenHierarchy]) -> "TokenProduct":
        """Join members that ``fit(index)`` gives, one after the other."""
        _ = self.spec  # values are checked as one
        return self._joined([fit(index) for index in range(len(self.members))])

    def member(self, index: int) -> TokenHierarchy:
        """The hierarchy of a spec, not fitted yet."""
        member = TokenHierarchy.of(self.members[index], shape=self.shape, value_range=self.value_range)
        member.seed += self.seed
        return member

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None) -> "TokenProduct":
        """Count more images in every member."""
        _ = self.spec
        if not hasattr(self, "members_"):
            members = [self.member(index) for index in range(len(self.members))]
            return self._joined([member.partial_fit(X, y, classes, sample_weight) for member in members])
        before = [{**member.__dict__, "family_": copy.copy(member.family_)} for member in self.members_]
        try:
            return self._joined([member.partial_fit(X, y, classes, sample_weight) for member in self.members_])
        except BaseException:
            for member, parts in zip(self.members_, before, strict=True):  # all count the images, or none does
                member.__dict__ = parts
            raise

    def merge(self, other: "TokenProduct", base: "TokenProduct | None" = None) -> "TokenProduct":
        """Add the counts of another product, member by member, see ``TokenHierarchy.merge``."""
        check_is_fitted(self)
        check_is_fitted(other)
        if len(self.members_) != len(other.members_):
            raise DataError(f"only equal products add up, got {len(self.members_)} and {len(other.members_)} members")
        pairs = list(zip(self.members_, other.members_, strict=True))
        for mine, theirs in pairs:  # all of them, before the first one changes
            mine.require_same_tokens(theirs)
            if hasattr(mine.family_, "integers"):
                raise DataError(
                    "hidden states of two fits do not mean the same; a product with a hidden tree cannot merge"
                )
        for index, (mine, theirs) in enumerate(pairs):
            mine.merge(theirs, None if base is None else base.members_[index])
        return self

    def predict_log_joint(self, X: Any) -> Float[np.ndarray, "number classes"]:
        r"""$\ln p(c) + \sum_m \tau_m \ln p_m(z_m \mid c)$, in nats."""
        check_is_fitted(self)
        prior = self.density_.law_.root.double().log().numpy()
        possible = np.isfinite(prior)
        joint: Any = prior
        for member in self.members_:
            own = np.where(possible, member.law_.root.double().log().numpy(), 0.0)
            joint = joint + np.where(possible, member.predict_log_joint(X) - own, 0.0)
        impossible = (joint == -np.inf).all(-1, keepdims=True)  # whatever the class: the members rule each other out
        return np.where(impossible, prior, joint)

    def predict_proba(self, X: Any) -> Float[np.ndarray, "number classes"]:
        """Posterior of the classes."""
        return torch.from_numpy(self.predict_log_joint(X)).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class."""
        place = self.predict_log_joint(X).argmax(-1)
        return np.asarray(self.classes_[place])

    @property
    def sampler_(self) -> TokenHierarchy:
        """The member that draws, completes, coarse-grains and refines."""
        check_is_fitted(self)
        return self.members_[self.draws]

    @property
    def density_(self) -> TokenHierarchy:
        """The member that weighs and codes."""
        check_is_fitted(self)
        return self.members_[self.weighs]

    # -- the members', by the hallway's names ------------------------------------------------------------------------

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
        """Of the member that draws, finest first."""
        return self.sampler_.levels

    @property
    def grade(self) -> Grade:
        """Exact, on the density's tokens."""
        return self.density_.grade

    def sample(
        self, num: int, *, condition: Tensor | None = None, generator: torch.Generator, level: int = 0
    ) -> Tensor:
        """See ``TokenHierarchy.sample``."""
        return self.sampler_.sample(num, condition=condition, generator=generator, level=level)

    def coarsen(self, x: Tensor, level: int, *, generator: torch.Generator | None = None) -> Tensor:
        """See ``TokenHierarchy.coarsen``."""
        return self.sampler_.coarsen(x, level, generator=generator)

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
        return self.sampler_.refine(coarse, level=level, to=to, condition=condition, generator=generator)

    def render(self, y: Tensor, level: int) -> Tensor:
        """See ``TokenHierarchy.render``."""
        return self.sampler_.render(y, level)

    def encode(self, x: Tensor) -> Pyramid:
        """See ``TokenHierarchy.encode``."""
        return self.sampler_.encode(x)

    def decode(self, pyramid: Pyramid) -> Tensor:
        """See ``TokenHierarchy.decode``."""
        return self.sampler_.decode(pyramid)

    def log_prob(self, x: Tensor, *, condition: Tensor | None = None, per_level: bool = False) -> Tensor:
        """See ``TokenHierarchy.log_prob``."""
        return self.density_.log_prob(x, condition=condition, per_level=per_level)

    def score_samples(self, X: Any) -> Float[np.ndarray, " number"]:
        """See ``TokenHierarchy.score_samples``."""
        return self.density_.score_samples(X)

    def in_paint(self, X: Any, seen: np.ndarray, *, generator: torch.Generator | None = None) -> np.ndarray:
        """See ``TokenHierarchy.in_paint``."""
        return self.sampler_.in_paint(X, seen, generator=generator)

    def transform(self, X: Any, level: int = 1) -> np.ndarray:
        """See ``TokenHierarchy.transform``."""
        return self.sampler_.transform(X, level)

    def inverse_transform(self, X: Any, level: int = 1) -> np.ndarray:
        """See ``TokenHierarchy.inverse_transform``."""
        return self.sampler_.inverse_transform(X, level)

    # -- disk --------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write ``product.toml`` and each member into a folder of its own, ``member0``, ``member1``, ..."""
        check_is_fitted(self)
        for index, member in enumerate(self.members_):
            member.save(Path(path) / f"member{index}")
        with atomic(Path(path) / "product.toml") as temporary:
            temporary.write_text(to_toml(self.spec), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "TokenProduct":
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: If the folder holds no product of hierarchies.
        """
        path = Path(path)
        if not (path / "product.toml").is_file():
            raise CheckpointError(f"{path} holds no product of token hierarchies (there is no product.toml)")
        try:
            spec = load_toml(TokensSpec, path / "product.toml")
        except RecipeError as error:
            raise CheckpointError(f"{path} holds no product of token hierarchies: {error}") from None
        members = [TokenHierarchy.load(path / f"member{index}") for index in range(len(spec.members))]
        return cls.of(spec, shape=members[0].shape, value_range=members[0].value_range)._joined(members)

    @property
    def _n_features_out(self) -> int:
        return self.sampler_._n_features_out

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "members_")

    def __sklearn_tags__(self) -> Any:
        return image_tags(super().__sklearn_tags__())

    def _joined(self, members: list[TokenHierarchy]) -> "TokenProduct":
        self.members_ = members
        self.classes_ = self.density_.classes_
        self.n_features_in_ = self.density_.n_features_in_
        return self
