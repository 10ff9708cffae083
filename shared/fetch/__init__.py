"""Fetches URLs that clients supply, from public addresses only. No other code in this service connects to such URLs.

===============  ==============================================================================
``rules``        holds the limits and lists; ``shared.settings.Fetch`` reads them from the environment
``urls``         parses URLs strictly; returns hosts and addresses in one canonical spelling
``addresses``    decides which addresses are public
``dns``          resolves names with a time limit and a bounded number of threads
``policy``       decides whether a URL may be fetched, and from which addresses
``deadline``     limits the time of a fetch and of each of its phases
``concurrency``  limits the number of concurrent fetches, in total and for each source
``transport``    sends one request over one connection to a checked address
``content``      reads the content: its encoding, its size, and streams that never end
``client``       follows redirects and returns the content (``Fetcher``)
===============  ==============================================================================
"""
