"""What an application needs to decode with a bundle's files, and how it knows that it does."""
