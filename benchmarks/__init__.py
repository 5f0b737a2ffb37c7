"""Benchmarks: measured side by side, never gated."""
