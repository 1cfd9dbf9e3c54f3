"""`python -m benchmarks.gpu`: is this right on a GPU, how fast is it, and what fits?

Stages run one after the other, each in a process of its own with a deadline, in the order of
`stages.STAGES`; what each has found is on disk as soon as it is measured.
"""
