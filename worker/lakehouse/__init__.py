"""Datasets as handlers see them."""
