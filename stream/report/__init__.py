"""A backtest as one page that people look at: no outside resources, no network, no build step.

====================  =========================================================================
``svg``               plots as SVG text: axes, lines, bands, points with whiskers
``charts``            which plots a backtest gives
``words``             the same in plain sentences
``page``              all of it as one HTML file
``chart.css``         colours and strokes of the plots, light and dark
``page.css``          the page around them
``page.js``           shows and hides settings; the page is whole without it
====================  =========================================================================

The plots are written by hand rather than by a plotting library because the page's own style sheet
then colours them (light and dark), their text stays text in the reader's font, lines can be shown
and hidden, and a report is tens of kilobytes and the same bytes everywhere.
"""
