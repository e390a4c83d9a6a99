"""The policy file: its keys, its rules, and everything wrong with it."""
