"""A recipe for a budget: which matrix of an encoder is stored in how many bits."""
