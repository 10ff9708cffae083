"""The embedded servers: MongoDB, and Valkey or Redis, without root and without Docker.

=====================  ==============================================================================
``errors``             the error that a server cannot run
``ports``              free ports on loopback
``credentials``        the passwords, which are made once and kept in files of the owner
``processes``          waits for the process of a server
``programs``           a server's program and its version
``versions``           how old a version is, and until when its makers repair it
``mongod``             the command of a mongod, its users, and its replica set
``mongod_choice``      which mongod opens a data folder
``mongod_download``    the makers' mongod, downloaded and verified
``http_download``      a download with limits; ``progress`` is how its progress is shown
``redis_server``       the command of a Valkey or Redis, and data that it cannot read
=====================  ==============================================================================
"""
