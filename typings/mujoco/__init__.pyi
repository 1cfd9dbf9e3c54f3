# MuJoCo's names come out of compiled modules without stubs, where pyright finds none of them.
from typing import Any

def __getattr__(name: str) -> Any: ...
