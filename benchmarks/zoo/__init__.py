"""A zoo of small, trained checkpoints that differ in everything a configuration can differ in."""
