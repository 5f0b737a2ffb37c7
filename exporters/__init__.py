"""Exporters of NeMo RNN-T models: every encoder and step file that a release ships."""
