"""What an OpenTelemetry collector sees; off unless asked for."""
