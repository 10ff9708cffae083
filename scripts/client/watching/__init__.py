"""``scripts/upload --watch``: upload what arrives in a folder, follow it to its result, and remove it then if that is wanted.

=============  =====================================================================================
``scan``       finds the images in the folder, and those of them that are complete
``state``      stores which files were sent, in which batch, and with which result
``sending``    reads files, sends them in groups, and asks for results
``removal``    removes a file whose image is done, if it is still the one that was uploaded
``command``    the command itself: its options, its messages and its exit code
``watcher``    does all of this again and again until it is stopped
=============  =====================================================================================
"""
