"""Structured compression of any model: skipped blocks, narrower layers, low-rank products."""
