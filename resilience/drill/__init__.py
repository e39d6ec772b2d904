"""The fire drill: real jobs on a site's own cluster that show whether a bystander survives a GPU fault there.

`bystander.py` and `culprit.py` are the programs of its job, `alone.py` looks before the fault, `plan.py` is the job, `judge.py`
reads what they left. The command is cli/drill.py.
"""
