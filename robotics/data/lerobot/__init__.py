"""LeRobot data sets (format v3), read and written with pyarrow and PyAV.

`recording` reads one by a robot's table, `raw` column by column, `draft` makes a table of its
description. `from_rlds` and `to_rlds` convert. lerobot, the library, is needed by none of them; the
tests hold what is written against it.
"""
