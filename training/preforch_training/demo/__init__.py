"""Worlds of generated prompts and responses whose true weights and rewards are known (see `world`).

`assistant` is the demo world, `tutor` the one of word problems; `worlds` has them by name.
"""
