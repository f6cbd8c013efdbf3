"""The newcomer's first five minutes: real servers on loopback, and one query over all of them."""
