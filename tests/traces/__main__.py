"""`python -m tests.traces` makes the golden traces anew."""

from tests.traces.made import SCENES, make, path_of

for name in SCENES:
    path_of(name).write_text(make(name))
    print(path_of(name).name)
