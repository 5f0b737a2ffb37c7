"""A verdict that can be proved: a signed statement of what was judged, and a bill of materials."""
