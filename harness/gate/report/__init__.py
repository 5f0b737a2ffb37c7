"""What is told of a run: on the terminal, on a page, in a comment, and to machines."""
