"""Runs: work that outlives the cell, the kernel and the browser.

A run is a worker process in a session of its own and a folder that tells
everything. Whoever wants to know how it goes reads the folder.
"""
