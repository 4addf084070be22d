"""Policies compared by what they answer: control, sweep, utility (METHOD 9)."""
