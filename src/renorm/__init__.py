"""renorm: generative models that coarse-grain data scale by scale and learn to run the flow backwards.

    >>> import renorm
    >>> renorm.Lattice((32, 32)).sites
    1024

The names below are imported when they are first used, so that ``import renorm`` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from renorm.version import __version__

if TYPE_CHECKING:
    from renorm.cascade.cascade import Cascade
    from renorm.cascade.spec import CascadeFit, CascadeSpec
    from renorm.data import load as load_data
    from renorm.data.spec import DataSpec
    from renorm.diffusion.chains.model import ChainDiffusion
    from renorm.diffusion.chains.spec import ChainSpec
    from renorm.diffusion.mode_diffusion import ModeDiffusion
    from renorm.diffusion.spec import DiffusionSpec
    from renorm.errors import RenormError
    from renorm.fit.spec import FitSpec
    from renorm.lattice import Lattice
    from renorm.model import Grade, RenormModel
    from renorm.nn.spec import UNetSpec
    from renorm.recipes.run import fit_run, load, measure_run
    from renorm.recipes.spec import CascadeRecipe, ChainRecipe, Recipe, TokensRecipe, load_recipe
    from renorm.tokens.product import TokenProduct
    from renorm.tokens.spec import HierarchySpec, TokensSpec
    from renorm.tokens.token_hierarchy import TokenHierarchy

_HOME = {
    "Cascade": "cascade.cascade:Cascade",
    "CascadeFit": "cascade.spec:CascadeFit",
    "CascadeRecipe": "recipes.spec:CascadeRecipe",
    "CascadeSpec": "cascade.spec:CascadeSpec",
    "ChainDiffusion": "diffusion.chains.model:ChainDiffusion",
    "ChainRecipe": "recipes.spec:ChainRecipe",
    "ChainSpec": "diffusion.chains.spec:ChainSpec",
    "DataSpec": "data.spec:DataSpec",
    "DiffusionSpec": "diffusion.spec:DiffusionSpec",
    "FitSpec": "fit.spec:FitSpec",
    "Grade": "model:Grade",
    "Lattice": "lattice:Lattice",
    "ModeDiffusion": "diffusion.mode_diffusion:ModeDiffusion",
    "Recipe": "recipes.spec:Recipe",
    "RenormError": "errors:RenormError",
    "RenormModel": "model:RenormModel",
    "HierarchySpec": "tokens.spec:HierarchySpec",
    "TokenHierarchy": "tokens.token_hierarchy:TokenHierarchy",
    "TokenProduct": "tokens.product:TokenProduct",
    "TokensRecipe": "recipes.spec:TokensRecipe",
    "TokensSpec": "tokens.spec:TokensSpec",
    "UNetSpec": "nn.spec:UNetSpec",
    "fit_run": "recipes.run:fit_run",
    "load": "recipes.run:load",
    "load_data": "data.images:load",
    "load_recipe": "recipes.spec:load_recipe",
    "measure_run": "recipes.run:measure_run",
}

__all__ = [
    "Cascade",
    "CascadeFit",
    "CascadeRecipe",
    "CascadeSpec",
    "ChainDiffusion",
    "ChainRecipe",
    "ChainSpec",
    "DataSpec",
    "DiffusionSpec",
    "FitSpec",
    "Grade",
    "HierarchySpec",
    "Lattice",
    "ModeDiffusion",
    "Recipe",
    "RenormError",
    "RenormModel",
    "TokenHierarchy",
    "TokenProduct",
    "TokensRecipe",
    "TokensSpec",
    "UNetSpec",
    "__version__",
    "fit_run",
    "load",
    "load_data",
    "load_recipe",
    "measure_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'renorm' has no attribute {name!r}")
    module, attribute = _HOME[name].split(":")
    return getattr(import_module(f"renorm.{module}"), attribute)
