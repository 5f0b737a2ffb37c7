"""The golden checkpoint: a small trained model, the recipe that made it and what it must decode."""
