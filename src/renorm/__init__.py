"""renorm: generative models that coarse-grain data scale by scale and learn to run the flow backwards."""

__version__ = "0.1.0"
