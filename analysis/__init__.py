"""Experiments, measures, statistics, claims and figures."""
