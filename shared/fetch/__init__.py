"""The one way out to the network: what somebody else's URL names is fetched here, from public addresses only.

=============  =====================================================================
``urls``       a URL is taken apart once, strictly; hosts and addresses in one spelling
``addresses``  which addresses are public
``names``      names become addresses, within a time limit and with few threads
``guard``      may this URL be fetched, and from which addresses
``clock``      how long a phase, and the whole, may still take
``gate``       how much goes on at once, in all and with one source
``wire``       one request over one connection to a checked address
``client``     ``Fetcher``: redirects, bodies, what is handed back
=============  =====================================================================
"""
