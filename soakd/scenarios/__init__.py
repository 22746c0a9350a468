"""What a round does with nodes: one pure machine (`core.rounds`), played against real calls.

`player` plays it; `source_probe` and `keyword_probe` are the calls of the two kinds of flow;
`dht_selftest` is what a self-test looks at besides. Which flow comes when: `core.flows`.
"""
