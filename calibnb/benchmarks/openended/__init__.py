"""Open-ended generation: one random member of a category."""
