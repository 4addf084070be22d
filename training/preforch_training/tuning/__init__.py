"""What trainings of Hugging Face models share: parameters, memory, padding, the trainer, who hears of it."""
