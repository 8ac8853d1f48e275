"""Lists as older versions have written them: they replay for ever (rule E4)."""
