"""The stages in order. A stage is named by the artifact it makes; its word is also its folder and its
config section."""

STAGES = ("data", "reward", "scores", "orchestrator", "policy", "bundle", "study", "report")
