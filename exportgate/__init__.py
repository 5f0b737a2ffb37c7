"""What exporters and harness stand on: errors, contracts, artifacts, data, runtimes."""
