"""Integer weights and activations, decided on calibration swipes."""
