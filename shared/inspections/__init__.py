"""Inspections: one image by URL or from a request body, processed once and returned many times.

Nothing of them is in the collections of batches.

=================  =====================================================================================================
``recipes``        what is made of an image; an inspection is identified by its source and its recipe
``jobs``           the life of an inspection: requested, claimed, done or failed, requested again when no longer fresh
``results``        what was made of an image by a recipe and a model, kept for a while, wherever the image came from
``notifications``  messages through Redis that an inspection has ended, for waiting requests
=================  =====================================================================================================
"""
