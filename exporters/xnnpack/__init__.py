"""ExecuTorch programs for XNNPACK: rewrite, quantise, lower."""
