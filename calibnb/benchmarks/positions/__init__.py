"""Answer positions: the letter of a right answer, chosen at random, and questions that the model writes."""
