"""Errors that a user can act on: the rule, the reason, the value. The command line prints each as one line."""

__all__ = [
    "CheckpointError",
    "DataError",
    "NoLikelihoodError",
    "NonFiniteLossError",
    "RecipeError",
    "RenormError",
    "StructureError",
]


class RenormError(Exception):
    """Base of every error that the user, not the program, can mend."""


class RecipeError(RenormError, ValueError):
    """A recipe, or a value given in its place, has an unknown key, a wrong type or a value out of range."""


class DataError(RenormError, ValueError):
    """A data file is absent, damaged, or does not have the shape or the values that it should have."""


class StructureError(DataError):
    """A structure file that holds no chains to read.

    Attributes:
        kind: Why, in words that are the same for every file of one fault: what lists of bad files are counted by.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class CheckpointError(RenormError):
    """A checkpoint or run folder is absent, damaged, or belongs to another model."""


class NonFiniteLossError(RenormError, ArithmeticError):
    """Training met a loss that is not a finite number and stopped; the last good checkpoint stays."""


class NoLikelihoodError(RenormError, NotImplementedError):
    """``log_prob`` was asked of a model whose grade is ``Grade.NONE``."""
