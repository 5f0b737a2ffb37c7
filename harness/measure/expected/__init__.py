"""What files are compared with: NeMo's outputs, and what was recorded of them."""
