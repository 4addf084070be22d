"""What report and study measure with: bootstrap intervals, metrics, names of predictors, Markdown tables."""
