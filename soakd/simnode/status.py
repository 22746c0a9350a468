"""The status object: 99 fields, of which 18 are gauges, 12 lifetime totals, 69 window counters.

The `_total` suffix does not tell them apart; these tables do.
"""

from __future__ import annotations

GAUGES = (
    "uptime_secs",
    "routing",
    "live",
    "live_10m",
    "pending",
    "pending_overdue",
    "pending_max_overdue_ms",
    "tracked_out_requests",
    "peer_unknown",
    "peer_verified",
    "peer_stable",
    "peer_unreliable",
    "keyword_keywords_tracked",
    "keyword_hits_total",
    "store_keyword_keywords",
    "store_keyword_hits_total",
    "source_store_files",
    "source_store_entries_total",
)

# Lifetime total -> the counter it sums up; the last one has no window field of its own.
LIFETIME = {
    "sent_reqs_total": "sent_reqs",
    "recv_req_total": "sent_reqs",
    "recv_ress_total": "recv_ress",
    "recv_res_total": "recv_ress",
    "timeouts_total": "timeouts",
    "tracked_out_matched_total": "tracked_out_matched",
    "tracked_out_unmatched_total": "tracked_out_unmatched",
    "tracked_out_expired_total": "tracked_out_expired",
    "outbound_shaper_delayed_total": "outbound_shaper_delayed",
    "dropped_legacy_kad1_total": "dropped_legacy_kad1",
    "dropped_unhandled_opcode_total": "dropped_unhandled_opcode",
    "sam_framing_desync_total": "sam_framing_desync",
}

_ALIASES = {"recv_req": "sent_reqs", "recv_res": "recv_ress"}

WINDOW = (
    "sent_reqs",
    "recv_req",
    "recv_ress",
    "recv_res",
    "res_contacts",
    "timeouts",
    "new_nodes",
    "evicted",
    "dropped_undecipherable",
    "dropped_unparsable",
    "dropped_legacy_kad1",
    "dropped_unhandled_opcode",
    "recv_hello_reqs",
    "sent_hellos",
    "recv_hello_ress",
    "sent_hello_acks",
    "recv_hello_acks",
    "hello_ack_skipped_no_sender_key",
    "sent_bootstrap_reqs",
    "recv_bootstrap_ress",
    "bootstrap_contacts",
    "sent_search_source_reqs",
    "recv_search_ress",
    "search_results",
    "new_sources",
    "recv_search_source_reqs",
    "recv_search_source_decode_failures",
    "source_search_hits",
    "source_search_misses",
    "source_search_results_served",
    "sent_publish_source_reqs",
    "recv_publish_ress",
    "recv_publish_source_reqs",
    "recv_publish_source_decode_failures",
    "sent_publish_source_ress",
    "new_store_source_entries",
    "source_search_batch_candidates",
    "source_search_batch_skipped_version",
    "source_search_batch_sent",
    "source_search_batch_send_fail",
    "source_publish_batch_candidates",
    "source_publish_batch_skipped_version",
    "source_publish_batch_sent",
    "source_publish_batch_send_fail",
    "source_probe_first_publish_responses",
    "source_probe_first_search_responses",
    "source_probe_publish_latency_ms_total",
    "source_probe_search_latency_ms_total",
    "source_probe_search_results_total",
    "sent_search_key_reqs",
    "recv_search_key_reqs",
    "keyword_results",
    "new_keyword_results",
    "evicted_keyword_hits",
    "evicted_keyword_keywords",
    "sent_publish_key_reqs",
    "recv_publish_key_ress",
    "recv_publish_key_reqs",
    "recv_publish_key_decode_failures",
    "sent_publish_key_ress",
    "new_store_keyword_hits",
    "evicted_store_keyword_hits",
    "evicted_store_keyword_keywords",
    "tracked_out_matched",
    "tracked_out_unmatched",
    "tracked_out_expired",
    "outbound_shaper_delayed",
    "outbound_shaper_drop_global_cap",
    "outbound_shaper_drop_peer_cap",
)


class Counters:
    """Counts events; closing the window zeroes it and adds it to the lifetime totals."""

    def __init__(self) -> None:
        self._window: dict[str, int] = {}
        self._totals = dict.fromkeys(LIFETIME, 0)

    def add(self, name: str, count: int = 1) -> None:
        """Count an event in the open window."""
        self._window[name] = self._window.get(name, 0) + count

    def drop_window(self) -> None:
        """Forget the open window: traffic of the bootstrap is never counted."""
        self._window.clear()

    def close_window(self, gauges: dict[str, int]) -> dict[str, int]:
        """Return a status object and open the next window."""
        window, self._window = self._window, {}
        for total, counter in LIFETIME.items():
            self._totals[total] += window.get(counter, 0)
        status = {name: gauges.get(name, 0) for name in GAUGES}
        status |= {name: window.get(_ALIASES.get(name, name), 0) for name in WINDOW}
        return status | self._totals
