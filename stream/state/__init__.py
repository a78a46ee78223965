"""Where facts and coefficients are kept: keys, codecs, stores and what is not yet flushed."""
