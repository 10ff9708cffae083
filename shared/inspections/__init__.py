"""One picture by URL or by hand: asked for, worked on once, answered many times. Nothing of it is in the batch collections.

===========  =====================================================================================
``recipes``  what is to be made of a picture; an inspection is its source and its recipe
``jobs``     an inspection's way: asked, claimed, done or failed, asked again when it is no longer fresh
``results``  what was made of a picture by a recipe and a model, kept for a while, wherever it came from
``news``     word that an inspection has ended, for those who wait
===========  =====================================================================================
"""
