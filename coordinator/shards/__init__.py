"""The shards that there are: which can be used, where they are, whose clock is wrong."""
