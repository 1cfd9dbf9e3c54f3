"""The doctor of data sets: what is in one, what is wrong with it, and how to read it.

`scan` streams records into small tracks, `motion` and `gripper` test conventions on what was
measured, `checks` turns all of it into `findings`, `proposal` guesses a specification and `draft`
writes one, `page` and `tables` show the result. `doctor` runs them in order.
"""
