"""The same files on the same swipes on several devices: what differs, and by how much."""
