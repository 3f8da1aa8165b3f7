"""Families of architectures that ship: structured compression, an elastic supernet, NAS-Bench-201 cells."""
