"""What schemathesis must know of the API that JSON Schema cannot say."""

from typing import Any

import schemathesis


def _whole(value: Any) -> Any:
    """The value without numbers such as 5.0: whole ones to JSON Schema, but the contract asks for
    integers, and 1e3 is none.
    """
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    return _whole(body)
