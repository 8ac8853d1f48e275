"""What a coordinator tells of itself: metrics, logs, traces. Decides nothing."""
