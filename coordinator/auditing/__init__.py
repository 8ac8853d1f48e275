"""Checks across shards by who need not be a coordinator: audit, anchors, one history, export."""
