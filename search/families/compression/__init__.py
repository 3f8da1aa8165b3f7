"""Structured compression of any model: skipped blocks, narrower layers, low-rank products."""

from __future__ import annotations

from .blocks import Block, Skip
from .compress import compress
from .family import CompressionFamily
from .pruning import ChannelGroup, Member

__all__ = ["Block", "ChannelGroup", "CompressionFamily", "Member", "Skip", "compress"]
