"""Swipes: manifests of them, synthetic ones, and the features that an encoder reads."""
