"""Other versions of the runtimes than the one beside the gate: ``--device onnxruntime==1.22.0``."""
