"""Latency of a whole model: layers, conversions between neighbours, other operators, launch overhead."""
