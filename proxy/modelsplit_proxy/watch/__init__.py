"""What is observed of Ollama and of this process."""
