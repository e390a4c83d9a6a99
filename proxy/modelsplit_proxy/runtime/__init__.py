"""The process and the machine: clocks, tasks, the service manager."""
