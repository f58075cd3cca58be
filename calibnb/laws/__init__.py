"""Laws: families and their grids, settings, the strings that answer them, distances between laws."""
