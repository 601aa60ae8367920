"""What a network is made of, without torch: the specs that a recipe reads."""

from dataclasses import dataclass

from renorm.spec import require

__all__ = ["ChainNetSpec", "UNetSpec"]


@dataclass(frozen=True)
class UNetSpec:
    """A U-Net: how wide, how deep, where it attends; level ``l`` has ``width * multipliers[l]`` channels.

    The defaults are the CIFAR-10 network of Ho et al. (2020), 35.7 million parameters in two dimensions.

    Args:
        width: Channels at multiplier 1; also the number of sinusoids that carry the scale.
        multipliers: Channels of each level over ``width``, finest level first.
        blocks: Residual blocks of a level on the way down; the way up has one more.
        attention: Levels with self-attention after each residual block.
        middle_attention: Whether the middle attends.
        heads: Attention heads.
        dropout: Probability, before the last convolution of a residual block (on a CPU as costly as that).
        groups: Groups of each group norm.
        embedding: Channels of the embedded scale and class; ``4 * width`` if not given.
        patch: Edge of the blocks of sites that become channels at the entry; the finest level then has
            ``patch`` times fewer sites along each axis.
        entries: Levels at which a field may enter and leave, the finest ones; at level l in blocks of ``patch * 2^l``
            sites, without the finer levels: a fraction of the work.

    Raises:
        ValueError: If a value is out of range or does not divide the channels.

    Source: Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020, appendix B.

    Example:
        >>> UNetSpec(width=32, multipliers=(1, 2), groups=8).stride
        2
    """

    width: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (1,)
    middle_attention: bool = True
    heads: int = 1
    dropout: float = 0.1
    groups: int = 32
    embedding: int | None = None
    patch: int = 1
    entries: int = 1

    def __post_init__(self) -> None:
        levels = len(self.multipliers)
        require(self.width >= 2 and self.width % 2 == 0, "width must be even (sines and cosines)", self.width)
        require(levels >= 1, "multipliers need at least one level", self.multipliers)
        require(all(m >= 1 for m in self.multipliers), "every multiplier must be >= 1", self.multipliers)
        require(self.blocks >= 1, "blocks must be >= 1", self.blocks)
        require(
            all(0 <= l < levels for l in self.attention),
            f"attention levels are 0 to {levels - 1}",
            self.attention,
        )
        require(self.heads >= 1, "heads must be >= 1", self.heads)
        require(0 <= self.dropout < 1, "dropout must be in [0, 1)", self.dropout)
        require(self.groups >= 1, "groups must be >= 1", self.groups)
        require(self.width % self.groups == 0, f"groups must divide the width {self.width}", self.groups)
        require(self.width % self.heads == 0, f"heads must divide the width {self.width}", self.heads)
        require(self.embedding is None or self.embedding >= 1, "embedding must be >= 1", self.embedding)
        require(self.patch >= 1, "patch must be >= 1", self.patch)
        require(1 <= self.entries <= levels, f"entries must be 1 to {levels} (the levels)", self.entries)

    @property
    def stride(self) -> int:
        """Sites of the field to one site of the coarsest level: every axis must be divisible by it."""
        return int(self.patch * 2 ** (len(self.multipliers) - 1))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.width * m for m in self.multipliers)


@dataclass(frozen=True)
class ChainNetSpec:
    """A network on chains of points: how wide, how deep, and what it is told of the residues.

    Args:
        width: Channels of a point; also twice the number of sinusoids that carry the scale.
        layers: Rounds of attention.
        heads: Attention heads.
        pair: Channels of a pair of points.
        context: Residues on either side whose letters a residue's own embedding sees.
        sequence: Whether it reads the letters of the residues.
        features: Channels of further features of each residue, those of a language model say; 0: none.

    Raises:
        ValueError: If a value is out of range or does not divide the width.

    Example:
        >>> ChainNetSpec(width=64, heads=4).width
        64
    """

    width: int = 64
    layers: int = 4
    heads: int = 4
    pair: int = 32
    context: int = 4
    sequence: bool = True
    features: int = 0

    def __post_init__(self) -> None:
        require(self.width >= 2 and self.width % 2 == 0, "width must be even (sines and cosines)", self.width)
        require(self.layers >= 1, "layers must be >= 1", self.layers)
        require(self.heads >= 1, "heads must be >= 1", self.heads)
        require(self.width % self.heads == 0, f"heads must divide the width {self.width}", self.heads)
        require(self.pair >= 1, "pair must be >= 1", self.pair)
        require(self.context >= 0, "context must be >= 0 residues", self.context)
        require(self.features >= 0, "features must be >= 0", self.features)
