"""Load the gate's pytest plugin, and pytester for the tests of the plugin itself."""

pytest_plugins = ["harness.gate.pytest_plugin", "pytester"]
