"""What all exporters share: options, one load for many files, checks, bundles."""
