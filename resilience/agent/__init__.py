"""The node agent: one loop that observes, lets the machine decide, and carries out what it says."""

from resilience.agent.loop import Agent

__all__ = ["Agent"]
