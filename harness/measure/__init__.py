"""Numbers about files: errors against NeMo, layers, time, instructions."""
