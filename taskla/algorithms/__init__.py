"""Tiled algorithms: one a file, each a sequential loop over tiles.

An algorithm takes a `taskla.flow.TaskFlow` and the tiles it works on and submits tasks. It knows
nothing of memory, workers, devices or messages. Lower case letters are tile indices, ``L_ik`` is a
tile.
"""
