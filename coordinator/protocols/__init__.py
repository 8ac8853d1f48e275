"""How a group becomes one outcome on several shards: pure state machines."""
