"""Responses drawn from a policy by vLLM, in a process of its own."""
