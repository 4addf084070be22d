"""The gateway: recommends weights for every prompt and makes a vLLM engine answer with them.

Imports no torch.
"""
