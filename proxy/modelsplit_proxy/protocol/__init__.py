"""What the bytes say: routes, bodies, answers, errors, in every dialect."""
