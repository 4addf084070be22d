"""What report and study measure with: bootstrap intervals, metrics, Markdown tables."""
