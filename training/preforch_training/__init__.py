"""How the parts are learned: one folder per stage, in the order of `stages.STAGES`."""
