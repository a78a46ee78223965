"""What a log holds and what is wrong with it, before anything is learned of it.

==============  ===================================================================================
``tallies``     counts with an example, distinct ids
``order``       times, and how far out of order they come
``joins``       engagements and their applications: how they lie in time, repeats, conflicts
``columns``     the numbers of the feature blocks
``survey``      one pass over the lines that fills all of these, in bounded memory
``problem``     one finding, and what share of a log makes it an error
``refusals``    lines that cannot be read, or are refused
``problems``    the rules: what of a survey is an error, what a warning, and what to do
``look``        a survey of logs and its problems, with progress shown
==============  ===================================================================================

Where a log has more than some 100,000 applications, shares that need a look at two events are taken
of a sample of the application ids, so that memory stays within some 100 MB.
"""
