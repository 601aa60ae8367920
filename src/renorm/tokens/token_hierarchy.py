"""``TokenHierarchy``: images as trees of discrete tokens, learned by counting."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from renorm.errors import DataError
from renorm.tokens import storage
from renorm.tokens.codec import integers as coding
from renorm.tokens.codec.tree_codec import TreeCodec
from renorm.tokens.completion import complete
from renorm.tokens.face import HallwayFace
from renorm.tokens.labels import Labels, weights
from renorm.tokens.parts import Progress, make_codebook, make_family
from renorm.tokens.pictures import Pictures
from renorm.tokens.spec import CodebookSpec, HierarchySpec, LawSpec, StyleSpec, ValueSpec, WindowSpec
from renorm.tokens.storage import TokenCard
from renorm.tokens.trees.tree_counts import TreeCounts

__all__ = ["TokenHierarchy"]


class TokenHierarchy(  # type: ignore[misc]
    HallwayFace, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    r"""Images as trees of tokens: a codebook below, a law of Dirichlet counts above, no gradient anywhere.

    $$ p(c, s, z) = p(c) \prod_{i} p(s_i \mid s_{\mathrm{parent}(i)}), \qquad
       \theta_{sk} = \frac{n_{sk} + \kappa m_k}{n_s + \kappa} $$

    z are the tokens that the codebook reads from an image, s the tokens above them, c the class; n are counts. Every
    answer (class, likelihood, draw, completion) is an exact sum over the tree.

    Args:
        codebook: From images to level-1 tokens: ``WindowSpec``, ``ValueSpec`` or ``RetinaSpec``.
        law: The tree: ``StyleSpec``, ``PyramidSpec``, ``ExemplarSpec`` or ``HiddenTreeSpec``.
        temper: $\tau > 0$, the power of $p(z \mid c)$ in the posterior of the class.
        shape: (channels,) height, width of images that come as rows; squares if not given.
        value_range: What black and white are in real data; bytes are 0 and 255.
        seed: Of all that is drawn while learning.

    Attributes:
        classes_: Labels of the classes, sorted.
        codebook_, family_, law_: The fitted parts.
        n_features_in_: Values of an image.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> x, y = load_digits(return_X_y=True)
        >>> codebook, law = WindowSpec(window=4, stride=1, tokens=64, components=0), StyleSpec(styles=4)
        >>> model = TokenHierarchy(codebook, law, value_range=(0.0, 16.0)).fit(x[:1000], y[:1000])
        >>> bool(model.score(x[1000:], y[1000:]) > 0.9)
        True
    """

    progress: Progress | None = None
    """Told of a long fit: steps done, steps in all, a figure that falls."""

    _codec: TreeCodec | None
    _integers: coding.IntegerTables | None

    def __init__(
        self,
        codebook: CodebookSpec = WindowSpec(),  # noqa: B008  (frozen)
        law: LawSpec = StyleSpec(),  # noqa: B008  (frozen)
        *,
        temper: float = 1.0,
        shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        self.codebook = codebook
        self.law = law
        self.temper = temper
        self.shape = shape
        self.value_range = value_range
        self.seed = seed

    @classmethod
    def of(cls, spec: HierarchySpec, **more: Any) -> "TokenHierarchy":
        """The hierarchy of a spec; ``more`` are ``shape`` and ``value_range``."""
        return cls(spec.codebook, spec.law, temper=spec.temper, seed=spec.seed, **more)

    @property
    def spec(self) -> HierarchySpec:
        """All values but those of the data."""
        return HierarchySpec(self.codebook, self.law, self.temper, self.seed)

    @property
    def lossless(self) -> bool:
        """Whether the tokens give an image of bytes back exactly."""
        return isinstance(self.codebook, ValueSpec) and self.codebook.bins == 256

    # -- learning ----------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, condition: Any = None) -> "TokenHierarchy":
        """Learn codebook, tree and counts afresh.

        Args:
            X: Images (number, height, width), (number, channel, height, width), or rows (number, sites); bytes or
                real. Hallway fields are images too.
            y: Label of each image; -1, ``None`` or NaN where unknown. Without labels the law has one class.
            sample_weight: How often each image counts; 0: as if it were not there.
            condition: The same as ``y``, by the hallway's name.

        Raises:
            DataError: If there is nothing to learn, or images are too small for the codebook.
            RecipeError: If a value is out of range.
        """
        return self._learn(X, condition if y is None else y, sample_weight, None)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None) -> "TokenHierarchy":
        """Count more images; the first call learns the codebook too.

        Args:
            X, y, sample_weight: See ``fit``.
            classes: All labels that will ever come, at the first call.

        Raises:
            DataError: If a label is none of the known classes.
        """
        if not hasattr(self, "law_"):
            return self._learn(X, y, sample_weight, classes)
        x = self._read(X)
        labels = Labels.of(y, len(x), self.classes_)
        kept = copy.copy(self.family_)  # adding changes no array in place
        try:
            self.family_.add(self.codebook_.encode(x), labels.index, weights(sample_weight, len(x)))
        except BaseException:
            self.family_ = kept
            raise
        return self._relearned()

    def merge(self, other: "TokenHierarchy", base: "TokenHierarchy | None" = None) -> "TokenHierarchy":
        """Add the counts of another hierarchy with the same codebook and tree, as of another worker.

        Args:
            other: The other one.
            base: The fitted hierarchy that both began as copies of: its counts are not counted twice.

        Raises:
            DataError: If the two do not read the same tokens, or did not begin as ``base``.
        """
        self.require_same_tokens(other)
        counts = self.family_.counts + other.family_.counts
        if base is not None:
            self.require_same_tokens(base)
            counts = counts - base.family_.counts
        return self.recount(counts)

    def recount(self, counts: TreeCounts) -> "TokenHierarchy":
        """Take other counts on the same tree in place of one's own."""
        self.family_.counts = counts
        return self._relearned()

    def require_same_tokens(self, other: "TokenHierarchy") -> None:
        """Check that counts of another hierarchy mean the same, so that ``merge`` may add them.

        Raises:
            DataError: If they do not.
        """
        check_is_fitted(self)
        check_is_fitted(other)
        specs = [(model.codebook, model.law, model.pictures_, model.classes_.tolist()) for model in (self, other)]
        mine, theirs = (_structure(model) for model in (self, other))
        same = mine.keys() == theirs.keys() and all(np.array_equal(mine[key], theirs[key]) for key in mine)
        if specs[0] != specs[1] or not same:
            raise DataError(
                "only counts over the same codebook, tree and classes add up; let workers copy one fit, then "
                "partial_fit"
            )

    # -- scikit-learn ------------------------------------------------------------------------------------------------

    def transform(self, X: Any, level: int = 1) -> Int64[np.ndarray, "number tokens"]:
        """Tokens of a level, row by row.

        Args:
            X: Images.
            level: 1: the codebook's; more: those above.
        """
        if level == 1:
            return self._tokens(X)
        x = self._read(X)
        coarse = self.coarsen(torch.from_numpy(self.pictures_.fields(x)), level)
        return coarse.reshape(len(coarse), -1).numpy()

    def inverse_transform(self, X: Any, level: int = 1) -> Float[np.ndarray, "number *event"]:
        """Images of tokens: the mean of what they stand for, in the shape and range that ``fit`` was given."""
        check_is_fitted(self)
        states = torch.as_tensor(np.asarray(X, np.int64)).reshape(len(X), *self._event(level))
        return self.render(states, level).numpy().reshape(len(X), *self.event_in_)

    def predict_log_joint(self, X: Any) -> Float[np.ndarray, "number classes"]:
        r"""$\ln p(c) + \tau \ln p(z \mid c)$, in nats."""
        check_is_fitted(self)
        prior = self.law_.root.double().log()
        if self.temper == 0:
            return np.tile(prior.numpy(), (len(self._read(X)), 1))
        joint = self._root_log_prob(torch.from_numpy(self._tokens(X)))
        tempered = torch.where(prior > -torch.inf, (joint - prior) * self.temper + prior, -torch.inf)
        impossible = (joint == -torch.inf).all(-1, keepdim=True)  # whatever the class: such tokens say nothing of it
        return torch.where(impossible, prior, tempered).numpy()

    def predict_proba(self, X: Any) -> Float[np.ndarray, "number classes"]:
        """Posterior of the classes."""
        return torch.from_numpy(self.predict_log_joint(X)).softmax(-1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class."""
        place = self.predict_log_joint(X).argmax(-1)
        return np.asarray(self.classes_[place])

    def score_samples(self, X: Any) -> Float[np.ndarray, " number"]:
        """Log probability of the tokens of each image, in nats."""
        return self._root_log_prob(torch.from_numpy(self._tokens(X))).logsumexp(-1).numpy()

    def in_paint(
        self, X: Any, seen: Bool[np.ndarray, "*number height width"], *, generator: torch.Generator | None = None
    ) -> Float[np.ndarray, "number *event"]:
        """Images with their hidden sites filled in, in the shape and range that ``fit`` was given; see ``complete``.

        Args:
            X: Images; what they hold at hidden sites (NaN, say) does not matter.
            seen: Sites that are to be believed, of all images or of each.
            generator: Draws the completion; without it the likeliest one is taken.

        Raises:
            DataError: If ``seen`` has another shape than the images, or a retina sees none of its tiles wholly.
        """
        check_is_fitted(self)
        seen, sites = np.asarray(seen, bool), self.pictures_.shape[1:]
        if seen.shape[-2:] != sites or seen.ndim > 3 or (seen.ndim == 3 and len(seen) not in (1, len(X))):
            raise DataError(f"seen must have the shape {sites} of the images, or (number, *{sites}), got {seen.shape}")
        images = self._read(self._without(X, ~seen))
        believed = np.broadcast_to(seen, (len(images), *sites))
        filled = complete(self.codebook_, self.law_, images, believed, generator=generator)
        fields = self.pictures_.fields(np.where(believed[:, None], images, filled).astype(np.float32))
        return fields.reshape(len(fields), *self.event_in_)

    # -- files -------------------------------------------------------------------------------------------------------

    @property
    def codec_(self) -> TreeCodec:
        """The coder of this law, its tables as integers; made once."""
        check_is_fitted(self)
        if self._codec is None:
            self._codec = coding.codec_of(self.law_.tree, self.codec_tables(), self.pictures_.shape, self.codebook_)
        return self._codec

    @property
    def has_coded(self) -> bool:
        """Whether the integers of its files are fixed already, so that ``save`` keeps them."""
        return self._integers is not None or hasattr(self.family_, "integers")

    def codec_tables(self) -> coding.IntegerTables:
        """The tables of the law as integers; made once, then kept with the model."""
        if self._integers is None:
            own = getattr(self.family_, "integers", None)
            self._integers = own or coding.integer_tables(self.law_)
        return self._integers

    def compress(self, X: Any) -> bytes:
        """Images as a file: lossless where the tokens are the grey values of bytes, else their tokens alone.

        See ``docs/format.md``. The file can be read by this model only, which must be kept; saved after coding, it
        keeps the very integers that the file was written with.

        Raises:
            DataError: If the model is lossless and real values are no multiples of 1/255.
        """
        images = self._read(X)
        if self.lossless:
            self.pictures_.require_bytes(images)
        return self.codec_.compress(self.codebook_.encode(images))

    def decompress(self, data: bytes) -> Shaped[np.ndarray, "number *event"]:
        """What ``compress`` wrote: bytes where it is lossless, else what the tokens stand for.

        Raises:
            DataError: If the file is damaged, foreign, or was made by another model.
        """
        tokens = self.codec_.decompress(data)
        decoded = self.codebook_.decode(tokens)
        if self.lossless:
            images = np.rint(decoded * 255).astype(np.uint8)
        else:
            images = self.pictures_.fields(decoded)
        return images.reshape(len(images), *self.event_in_)

    # -- disk --------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write ``model.toml`` (values) and ``model.safetensors`` (arrays) into a folder."""
        check_is_fitted(self)
        labels, kind = TokenCard.labels(self.classes_)
        pictures = self.pictures_
        card = TokenCard(self.spec, pictures.shape, self.event_in_, pictures.value_range, labels, kind)
        parts = {"codebook": self.codebook_.state(), "law": self.family_.state()}
        coded = self.lossless or self.has_coded  # files are read by these integers, on every machine
        if coded and not hasattr(self.family_, "integers"):
            parts["codec"] = coding.packed(self.codec_tables())
        storage.write(card, parts, Path(path))

    @classmethod
    def load(cls, path: Path) -> "TokenHierarchy":
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: If the folder holds no token hierarchy, or a damaged one.
        """
        card, parts = storage.read(Path(path))
        model = cls.of(card.spec, shape=card.shape, value_range=card.value_range)
        model.classes_ = card.class_labels
        model.pictures_ = Pictures(card.shape, card.value_range)
        model.event_in_ = card.event
        model.n_features_in_ = math.prod(card.event)
        model.codebook_ = make_codebook(card.spec.codebook, card.shape).restore(parts["codebook"])
        family = make_family(card.spec.law)
        model.family_ = family.restore(model.codebook_, len(model.classes_), parts["law"])
        model._relearned()
        if parts["codec"]:
            model._integers = coding.unpacked(parts["codec"])
        return model

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _n_features_out(self) -> int:
        return len(self.law_.tree.leaves)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "law_")

    def __sklearn_tags__(self) -> Any:
        return image_tags(super().__sklearn_tags__())

    def _read(self, X: Any, *, reset: bool = False) -> Float[np.ndarray, "number channel height width"]:
        """Images in [0, 1] from whatever was given."""
        if isinstance(X, Tensor):
            X = X.detach().cpu().numpy()
        if not reset:
            check_is_fitted(self)
        if isinstance(X, list | tuple):
            X = np.asarray(X)
        event = tuple(X.shape[1:]) if getattr(X, "ndim", 2) > 2 else None
        if event is not None:  # to scikit-learn each image is a row, whatever its shape
            X = X.reshape(len(X), math.prod(event))
        X = validate_data(self, X, reset=reset, dtype=[np.float32, np.float64, np.uint8])
        if reset:
            self.event_in_ = event or X.shape[1:]
            self.pictures_ = Pictures.of(X.reshape(len(X), *self.event_in_), self.shape, self.value_range)
        elif event not in (None, self.event_in_, *self.pictures_.shapes):
            raise DataError(f"the model was fitted to images of shape {self.pictures_.shape}, got {event}")
        return self.pictures_.images(X)

    def _without(self, X: Any, hidden: np.ndarray) -> Any:
        """Images with black at hidden sites; what cannot be images is left for ``_read`` to refuse."""
        values = X.detach().cpu().numpy() if isinstance(X, Tensor) else np.asarray(X)
        if values.dtype.kind == "O":
            values = values.astype(np.float64)
        elif values.dtype != np.uint8 and values.dtype.kind in "iub":
            values = values.astype(np.float32)
        if values.dtype.kind not in "fu" or values.size != len(values) * math.prod(self.pictures_.shape):
            return X
        black = 0 if values.dtype == np.uint8 else self.pictures_.value_range[0]
        images = values.reshape(len(values), *self.pictures_.shape)
        cover = hidden[:, None] if hidden.ndim == 3 else hidden
        return np.where(cover, np.asarray(black, values.dtype), images).reshape(values.shape)

    def _tokens(self, X: Any) -> np.ndarray:
        x = self._read(X)
        return self.codebook_.encode(x)

    def _relearned(self) -> "TokenHierarchy":
        self.law_ = self.family_.law()
        self._codec, self._integers = None, None
        return self

    def _learn(self, X: Any, y: Any, sample_weight: Any, classes: Any) -> "TokenHierarchy":
        _ = self.spec  # values are checked as one
        if hasattr(self, "law_"):
            del self.law_  # what fails halfway is not fitted
        x = self._read(X, reset=True)
        labels = Labels.of(y, len(x), classes)
        self.classes_ = labels.classes
        weight, index = weights(sample_weight, len(x)), labels.index
        if weight is not None and not weight.all():
            kept = weight > 0
            x, index, weight = x[kept], index[kept], weight[kept]
        self.codebook_ = make_codebook(self.codebook, self.pictures_.shape).fit(x, seed=self.seed)
        tokens = self.codebook_.encode(x)
        family = make_family(self.law, self.progress)
        self.family_ = family.fit(self.codebook_, tokens, index, len(labels.classes), weight, seed=self.seed)
        return self._relearned()


def image_tags(tags: Any) -> Any:
    """What scikit-learn should know about estimators of images."""
    tags.input_tags.three_d_array = True
    tags.target_tags.required = False
    tags.transformer_tags.preserves_dtype = []  # tokens are whole numbers
    return tags


def _structure(model: TokenHierarchy) -> dict[str, np.ndarray]:
    """Arrays that say what a count is a count of."""
    states = model.family_.tree.states
    rules = {key: array for key, array in model.family_.state().items() if key.startswith("rule")}
    return {**model.codebook_.state(), **rules, "states": states, "parent": model.family_.tree.parent}
