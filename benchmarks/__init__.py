"""Experiments on the gate itself; each prints a table that is kept in ``results/``."""
