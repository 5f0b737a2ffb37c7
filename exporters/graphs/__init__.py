"""Graphs that both formats share: the decoding step, folded norms."""
