"""Reinforcement of policies by K rewards: whose weights, how rewards combine, what is punished, TRL's
trainers."""
