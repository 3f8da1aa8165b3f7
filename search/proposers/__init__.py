"""Proposers: who asks for configurations to be measured."""

from .proposer import Evaluated, Proposer

__all__ = ["Evaluated", "Proposer"]
