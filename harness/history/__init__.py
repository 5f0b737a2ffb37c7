"""Runs across checkpoints: store, trends, sweeps."""
