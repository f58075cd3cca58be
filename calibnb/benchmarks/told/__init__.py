"""Structured sampling with place and spread of the law told in the prompt, or told wrongly: see `benchmark`."""
