"""Readers of exported files: weights by their type, operators, graphs; no file is run."""
