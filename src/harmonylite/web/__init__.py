"""What a node shows over HTTP: health, metrics, a live page, and the local control API.

Invariant: everything here reads `harmonylite.status.NodeStatus` or calls `Actions`; nothing reaches into the node.
"""
