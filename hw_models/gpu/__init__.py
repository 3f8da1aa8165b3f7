"""Prices of named GPUs: the products that a site runs as, their measured or predicted times."""
