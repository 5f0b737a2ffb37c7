"""Load a checkpoint strictly and safely: the only folder that imports NeMo."""
