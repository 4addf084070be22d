"""`[policies.<name>]`, one class per kind of policy. No model library is loaded here: configurations are made
of it."""
