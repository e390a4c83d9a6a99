"""What may say no to a call: seats, breakers, budgets, keys."""
