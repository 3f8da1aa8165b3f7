"""Timing the real kernels of this machine: a plan, CPU and CUDA runners, tables with provenance."""
