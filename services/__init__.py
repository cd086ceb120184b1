"""Producers and workers built on Penstock, each a folder that knows the catalogue and nothing of the others."""
