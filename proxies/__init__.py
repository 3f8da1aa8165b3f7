"""What a configuration is predicted to cost, without running it."""

from .sensitivity import Proxy, Sensitivity, get_proxy, proxies, sensitivity

__all__ = ["Proxy", "Sensitivity", "get_proxy", "proxies", "sensitivity"]
