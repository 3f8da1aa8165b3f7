"""Formulas: proxies that are written as expressions of the statistics of a site."""

from .statistics import SiteStatistics

__all__ = ["SiteStatistics"]
