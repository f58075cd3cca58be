"""The book: style, figures, tables, building."""
