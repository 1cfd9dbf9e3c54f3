"""Pretrained models measured on the toy world: samples, metrics, tables, a page."""
