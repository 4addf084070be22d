"""Fine-tuning of Hugging Face models: which parameters, in how much memory, with which padding."""
