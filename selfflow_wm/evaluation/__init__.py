"""Pretrained models measured on the toy world: samples, metrics, tables, a page. Fréchet distances
of any two sets of media."""
