"""Zero-cost proxies of whole networks: how good an architecture will be once trained, told before it is."""
