"""The version, apart from the face of the package, so that no room has to look up for it."""

__all__ = ["__version__"]

__version__ = "0.1.0"
