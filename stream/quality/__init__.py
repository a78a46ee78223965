"""Do the effects help? Judged on scores that were given before anything of them was learned.

``tally`` sums up what the scores of some applications were worth, and can be merged; ``gate`` draws
the consequence: coefficients that make the score worse are not published. Both are pure;
:mod:`stream.quality.judged` keeps them in a partition's state.
"""
