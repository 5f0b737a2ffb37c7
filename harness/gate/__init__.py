"""The gate: what is judged, by which limits, and what is said about it."""
