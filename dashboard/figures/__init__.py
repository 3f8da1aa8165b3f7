"""Figures of the dashboard: pure functions of a view; every marker of a point carries the point's id first."""
