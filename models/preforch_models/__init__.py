"""What the parts are: vocabulary, on-disk formats, model definitions. No configuration, no network.

Importing this package, and every module but `encoder`, `reward_model` and `orchestrator_model`, needs no
torch.
"""
