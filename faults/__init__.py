"""The test build of a coordinator: the product, with faults woven into it from outside.

    TANDEM_FAULTS='before-commit@s2=freeze*1; after-decision=kill%0.02' python -m faults

Of all this the product knows nothing. It has no hooks, its packages do not contain this one, and
a product build refuses to start with TANDEM_FAULTS or TANDEM_PLANT set, as with any variable that
it does not know. What a test build does is read from these two variables at its start and nowhere
else: no request can switch anything.

    plan.py       what TANDEM_FAULTS may say, and when a fault fires (pure)
    points.py     the points at which faults can be, the bugs that can be planted, the weaving
    __main__.py   the start
"""
