"""Latency of whole architectures: an encoding of the network and a regression on it."""
