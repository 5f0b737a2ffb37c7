"""ONNX files for ONNX Runtime: rewrite, trace, quantise, store."""
