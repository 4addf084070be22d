"""`preforch answers`: a policy's answers to the questions of public benchmarks, in the files that their own
judges read. Nothing is judged here."""
