"""Where files run: each device carries them there, opens them, and has its own clock."""
