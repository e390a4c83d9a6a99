"""The speed bench: tools built from Go, peers started beside us, cells, and what they tell."""
