"""Everything that is no inference call."""
