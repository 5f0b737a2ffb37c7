"""A run of the gate: what it was asked, and whatever is computed for it, once."""
