"""The only place that opens a runtime, in a process of its own where native code may crash."""
