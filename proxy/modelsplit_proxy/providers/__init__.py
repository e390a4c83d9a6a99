"""Clouds: the same request answered by somebody else's API, in the client's dialect."""
