"""Bytes and connections, on both sides."""
