"""Floor 7: words typed by a person become one function call."""
