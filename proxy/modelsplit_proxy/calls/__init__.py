"""One inference call, from top to bottom."""
