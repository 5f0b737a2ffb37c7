"""What is inside a file, read from the file itself."""
