"""Inspections: an image from a URL or a request body is processed once, and its result is returned many times.

Inspections are stored in their own collections, separate from batches.

=================  =====================================================================================================
``recipes``        define what is made from an image; an inspection is identified by its source and its recipe
``jobs``           store an inspection from its request until it is done or has failed
``results``        store what was made from an image with a recipe and a model, until it has not been used for a while
``notifications``  report to waiting requests through Redis that an inspection has ended
``requesters``     record which accounts requested an inspection, because only they may read it
=================  =====================================================================================================
"""
