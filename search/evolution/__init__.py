"""Evolution of formulas: proxies found by genetic programming on measured benches."""
