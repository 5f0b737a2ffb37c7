"""Readers of recordings of real swipes in the formats that others publish."""
