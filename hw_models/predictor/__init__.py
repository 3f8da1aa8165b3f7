"""Latency of matrix products on a device with a dense table: roofline and boosted residual, with intervals."""
