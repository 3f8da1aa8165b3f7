"""Recipes for tools that quantize themselves: a configuration in the words of each tool, refused where it has none."""

from .aimet import AimetRecipe
from .auto_round import AutoRoundRecipe
from .llama_cpp import LlamaCppRecipe
from .llm_compressor import LlmCompressorRecipe
from .modelopt import ModelOptRecipe
from .recipe import Recipe

__all__ = [
    "AimetRecipe",
    "AutoRoundRecipe",
    "LlamaCppRecipe",
    "LlmCompressorRecipe",
    "ModelOptRecipe",
    "Recipe",
]
