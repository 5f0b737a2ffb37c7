"""What is told of a run: to people on the terminal, on a page and in a comment; to machines in JSON."""
