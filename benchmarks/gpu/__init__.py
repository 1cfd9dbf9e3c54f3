"""`python -m benchmarks.gpu`: is this right on a GPU, how fast is it, and what fits?

Stages run one after the other, each in a separate process with a deadline, in the order of
`stages.STAGES`; every result is on disk as soon as it is measured.
"""
