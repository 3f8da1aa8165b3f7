"""Quantization-aware finetuning of one configuration: weights and step sizes learnt together."""

from .finetune import Epoch, Finetuned, finetune

__all__ = ["Epoch", "Finetuned", "finetune"]
