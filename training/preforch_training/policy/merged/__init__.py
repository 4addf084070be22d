"""Policies merged: whole parameters, and LoRA adapters."""
