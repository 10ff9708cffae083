"""Fetching of client-supplied URLs, from public addresses only. No other code of this service connects to such URLs.

===============  ==============================================================================
``rules``        limits and lists as plain values; ``shared.settings.Fetch`` adds the environment
``urls``         strict parsing of URLs; hosts and addresses in one canonical spelling
``addresses``    which addresses are public
``dns``          name resolution with a time limit and a bounded number of threads
``policy``       whether a URL may be fetched, and from which addresses
``deadline``     the time limits of a fetch and of its phases
``concurrency``  the number of concurrent fetches, in total and for each source
``transport``    one request over one connection to a checked address
``client``       ``Fetcher``: redirects, content, the result
===============  ==============================================================================
"""
