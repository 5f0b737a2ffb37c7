"""The parts of ``harness.gate.pytest_plugin``: options, the request, parameters, the verdict."""
