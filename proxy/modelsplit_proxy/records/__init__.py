"""What is kept and told of a call."""
