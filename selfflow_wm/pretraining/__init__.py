"""Pretraining on several modalities: sources, codecs, the run, its plan, the command line."""
