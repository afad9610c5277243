"""One node, put together: start order, task group, stop order, and what is asked of it while it runs.

Nothing is imported here: `harmonylite.node.node` has the node, `harmonylite.node.wiring` each part's settings.
"""
