"""The list of a group on disk: its frames, in segments. `writer.List` appends to it, for the one
process that has the folder locked; `reader.Reader` reads it, from any process, up to a bound.
"""
