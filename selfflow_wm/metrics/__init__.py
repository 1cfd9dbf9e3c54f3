"""Metrics of generated pictures, clips and sounds, with known answers in the toy world."""
