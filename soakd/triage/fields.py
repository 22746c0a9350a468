"""The fields of a node's status object: gauges, lifetime totals, counters of one window.

The `_total` suffix does not tell them apart; these tables do. A field of a later version that
stands in none of them is named and never summed.
"""

from __future__ import annotations

from typing import Final

OLD_COUNTERS: Final = (
    "live",
    "live_10m",
    "routing",
    "pending",
    "timeouts",
    "dropped_undecipherable",
    "dropped_unparsable",
    "source_store_files",
    "source_store_entries_total",
    "recv_search_source_reqs",
    "recv_publish_source_reqs",
    "source_search_hits",
    "source_search_misses",
    "source_search_results_served",
    "source_probe_first_publish_responses",
    "source_probe_first_search_responses",
    "source_probe_search_results_total",
    "source_probe_publish_latency_ms_total",
    "source_probe_search_latency_ms_total",
)
"""What the old triage showed of each node, in its order."""

UPTIME: Final = "uptime_secs"

_GAUGES = """
uptime_secs routing live live_10m pending pending_overdue pending_max_overdue_ms
tracked_out_requests peer_unknown peer_verified peer_stable peer_unreliable
keyword_keywords_tracked keyword_hits_total store_keyword_keywords store_keyword_hits_total
source_store_files source_store_entries_total
"""
GAUGES: Final = frozenset(_GAUGES.split())

_LIFETIME = """
sent_reqs_total recv_req_total recv_ress_total recv_res_total timeouts_total
tracked_out_matched_total tracked_out_unmatched_total tracked_out_expired_total
outbound_shaper_delayed_total dropped_legacy_kad1_total dropped_unhandled_opcode_total
sam_framing_desync_total
"""
LIFETIME: Final = frozenset(_LIFETIME.split())

_WINDOW = """
sent_reqs recv_req recv_ress recv_res res_contacts timeouts new_nodes evicted
dropped_undecipherable dropped_unparsable dropped_legacy_kad1 dropped_unhandled_opcode
recv_hello_reqs sent_hellos recv_hello_ress sent_hello_acks recv_hello_acks
hello_ack_skipped_no_sender_key sent_bootstrap_reqs recv_bootstrap_ress bootstrap_contacts
sent_search_source_reqs recv_search_ress search_results new_sources
recv_search_source_reqs recv_search_source_decode_failures source_search_hits
source_search_misses source_search_results_served
sent_publish_source_reqs recv_publish_ress recv_publish_source_reqs
recv_publish_source_decode_failures sent_publish_source_ress new_store_source_entries
source_search_batch_candidates source_search_batch_skipped_version source_search_batch_sent
source_search_batch_send_fail source_publish_batch_candidates
source_publish_batch_skipped_version source_publish_batch_sent source_publish_batch_send_fail
source_probe_first_publish_responses source_probe_first_search_responses
source_probe_publish_latency_ms_total source_probe_search_latency_ms_total
source_probe_search_results_total
sent_search_key_reqs recv_search_key_reqs keyword_results new_keyword_results
evicted_keyword_hits evicted_keyword_keywords
sent_publish_key_reqs recv_publish_key_ress recv_publish_key_reqs
recv_publish_key_decode_failures sent_publish_key_ress new_store_keyword_hits
evicted_store_keyword_hits evicted_store_keyword_keywords
tracked_out_matched tracked_out_unmatched tracked_out_expired
outbound_shaper_delayed outbound_shaper_drop_global_cap outbound_shaper_drop_peer_cap
"""
WINDOW: Final = frozenset(_WINDOW.split())
