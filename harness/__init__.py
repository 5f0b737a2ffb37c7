"""Open any exported file on its runtime, compare it with NeMo, audit, measure and judge it."""
