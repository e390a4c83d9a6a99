"""Service level objectives: samples in, verdicts out.

``samples`` says what is looked at, ``objectives`` which objective belongs to which gate and
window, ``judge`` makes a report of both. The same functions serve the admin port, the command
and the simulation.
"""
