"""The first commands of a newcomer: what is this checkpoint, what does my repository need."""
