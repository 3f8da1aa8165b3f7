"""Latency on a new device from a few measurements and the tables of other devices."""
