"""Files with their provenance: written atomically, described by a sidecar, kept in a cache."""
