"""Accounts: who makes a request, what they may do, and how they prove who they are.

========================== =======================================================================================
``permissions``            scopes, roles, and the rights of the principal of a request
``common_passwords``       passwords that nobody may choose
``passwords``              rules for passwords, and their hashes
``tokens``                 access tokens, refresh tokens, and the tokens in cookies
``signing_keys``           the keys that sign tokens and URLs
``inherited_signing_keys`` gives them to forked processes
``signing_key_file``       makes the file of these keys, and replaces them
``signed_urls``            URLs with which files can be read without other credentials
``csrf_tokens``            tokens that show that a page of this service sends a request
``key_format``             the text of an API key
``api_keys``               keys for scripts
``key_usage``              when keys were last used
``receipt_keys``           the keys that sign receipts of batches
``users``                  the people with a user name and a password
``sessions``               what a person has from signing in until signing out
``one_time_links``         invitations, and links that set a new password
``principals``             makes principals from stored users and keys
``authenticator``          finds the principal of a request from its credentials
``audit_log``              what is kept of sign-ins, refusals, and changes of rights
``audit_events``           the events of this log
``event_counts``           counts the events that a client can cause without limit
========================== =======================================================================================
"""
