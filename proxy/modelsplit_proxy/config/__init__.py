"""Files and settings, read into values."""
