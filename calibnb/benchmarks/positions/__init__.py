"""Answer positions: multiple-choice questions that the model writes."""
