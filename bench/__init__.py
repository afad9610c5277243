"""`make bench`: the budgets of the design, measured on this machine as ratios within one run.

Invariant: applications, watchers and nodes are processes of their own, so what is measured is what a user would see.
"""
