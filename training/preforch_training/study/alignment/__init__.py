"""The alignment gap in closed form, on pools of responses with gold labels (METHOD 9)."""
