"""Checkpoints and swipes as people get them wrong, and what ``exportgate doctor`` says of each."""
