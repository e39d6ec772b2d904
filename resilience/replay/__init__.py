"""A journal judged again: its sightings and tasks (script.py) go through the machine with other settings (play.py), and what
would have been decided differently comes out (compare.py). Pure; nothing here asks or changes a node.

A journal does not hold all that the machine saw. What is taken to be so instead: a process that the journal never names has a
number of its own; a task keeps state if it was ever promoted or restored; jobs are batch jobs that Slurm may requeue; clients without
a supervisor are not known; a control daemon says FAULT while the journal has the server unavailable. What a task is told works,
and takes as long, where the journal has the same; else it is taken to work at once. So the node's own settings are played as
well, and a difference counts only against that.
"""
