"""How often mpsr names the right culprit, and how fast it gets a silent one alone: the machine played with simulated faults.

`python -m tests.study` writes the figures and plots of docs/measurements. The faults are made up, as their evidence is; the
machine that judges them is the product's. Every scenario has a seed and comes out the same on every machine.
"""
