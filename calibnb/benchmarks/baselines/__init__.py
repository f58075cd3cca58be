"""Baselines that ask in another way."""
