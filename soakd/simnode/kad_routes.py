"""Routes of keywords, searches, peers and the debug endpoints."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from soakd.simnode.clock import now
from soakd.simnode.contacts import Contact
from soakd.simnode.exchange import ApiError, Response, failure, success
from soakd.simnode.keyword_jobs import Keyword, keyword_of
from soakd.simnode.node import Node
from soakd.simnode.routes import Call, Route, checked_id, field

_BODY = 16 * 1024
_AGENT = "rust-mule/0.1.0"


def _keyword(body: dict[str, Any]) -> Keyword:
    if body.get("keyword_id_hex") is not None:
        return Keyword("", checked_id(body["keyword_id_hex"]))
    keyword = keyword_of(field(body, "query", str))
    if keyword is None:
        raise ApiError(400)
    return keyword


def _queued(keyword: Keyword) -> Response:
    return success({"queued": True, "keyword": keyword.word, "keyword_id_hex": keyword.keyword_id})


def _published_answer(node: Node, keyword: Keyword) -> Response:
    if node.parts.config.sim.tell_keyword_id:
        return _queued(keyword)
    return success({"queued": True})  # as an older version answers


def _publish_keyword(node: Node, call: Call) -> None:
    body = call.body()
    keyword = _keyword(body)
    hit: dict[str, Any] = {
        "file_id_hex": checked_id(body.get("file_id_hex")),
        "filename": field(body, "filename", str),
        "file_size": field(body, "file_size", int),
    }
    if body.get("file_type") is not None:
        hit["file_type"] = field(body, "file_type", str)
    node.kad.commands.post(
        call.exchange,
        lambda: node.keywords.publish(keyword.keyword_id, hit),
        _published_answer(node, keyword),
    )


def _search_keyword(node: Node, call: Call) -> None:
    keyword = _keyword(call.body())
    node.kad.commands.post(
        call.exchange, lambda: node.keywords.search(keyword.keyword_id), _queued(keyword)
    )


def _keyword_results(node: Node, call: Call) -> None:
    keyword_id = call.id()
    node.kad.commands.ask(
        call.exchange,
        lambda: success({"keyword_id_hex": keyword_id, "hits": node.keywords.hits(keyword_id)}),
    )


def _searches(node: Node, call: Call) -> None:
    node.kad.commands.ask(call.exchange, lambda: success({"searches": node.keywords.jobs()}))


def _search(node: Node, call: Call) -> None:
    keyword_id = call.id()

    def found() -> Response:
        job = node.keywords.job(keyword_id)
        if job is None:
            return failure(404)
        return success({"search": job, "hits": node.keywords.hits(keyword_id)})

    node.kad.commands.ask(call.exchange, found)


def _stop_search(node: Node, call: Call) -> None:
    keyword_id = call.id()
    node.kad.commands.ask(
        call.exchange, lambda: success({"stopped": node.keywords.stop(keyword_id)})
    )


def _delete_search(node: Node, call: Call) -> None:
    keyword_id = call.id()
    text = parse_qs(call.exchange.request.query).get("purge_results", ["true"])[-1]
    if text not in ("true", "false"):
        raise ApiError(400)
    purge = text == "true"

    def deleted() -> Response:
        known = node.keywords.delete(keyword_id, purge=purge)
        return success({"deleted": known, "purged_results": purge})

    node.kad.commands.ask(call.exchange, deleted)


def _ago(moment: float | None) -> int | None:
    return None if moment is None else int(now() - moment)


def _short(destination: str) -> str:
    return f"{destination[:8]}..{destination[-8:]}"


def _peers(node: Node, call: Call) -> None:
    def peers() -> Response:
        contacts = sorted(node.contacts.by_id.values(), key=lambda c: -(c.heard_at or 0.0))
        return success({"peers": [_peer(contact) for contact in contacts]})

    node.kad.commands.ask(call.exchange, peers)


def _peer(contact: Contact) -> dict[str, Any]:
    return {
        "kad_id_hex": contact.kad_id,
        "udp_dest_b64": contact.destination,
        "udp_dest_short": _short(contact.destination),
        "kad_version": contact.version,
        "verified": contact.verified,
        "udp_key": 0,
        "udp_key_ip": 0,
        "failures": contact.failures,
        "peer_agent": None if contact.address is None else _AGENT,
        "last_seen_secs_ago": int(now() - contact.seen_at),
        "last_inbound_secs_ago": _ago(contact.heard_at),
        "last_queried_secs_ago": _ago(contact.queried_at),
        "last_bootstrap_secs_ago": None,
        "last_hello_secs_ago": _ago(contact.hello_at),
    }


def _ages(contacts: list[Contact]) -> dict[str, int | None]:
    seen = [int(now() - contact.seen_at) for contact in contacts]
    heard = [int(now() - c.heard_at) for c in contacts if c.heard_at is not None]
    return {
        "last_seen_min_secs": min(seen, default=None),
        "last_seen_max_secs": max(seen, default=None),
        "last_inbound_min_secs": min(heard, default=None),
        "last_inbound_max_secs": max(heard, default=None),
    }


def _routing_summary(node: Node, call: Call) -> None:
    def summary() -> Response:
        contacts = list(node.contacts.by_id.values())
        fills = sorted(len(bucket) for bucket in node.contacts.buckets())
        verified = sum(contact.verified for contact in contacts)
        counts = {
            "bucket_count": 128,
            "total_nodes": len(contacts),
            "verified_nodes": verified,
            "unverified_nodes": len(contacts) - verified,
            "buckets_empty": fills.count(0),
            "bucket_fill_min": fills[0],
            "bucket_fill_median": fills[64],
            "bucket_fill_max": fills[-1],
        }
        return success({"summary": {**counts, **_ages(contacts)}})

    node.kad.commands.ask(call.exchange, summary)


def _routing_buckets(node: Node, call: Call) -> None:
    def listed() -> Response:
        rows = []
        for index, bucket in enumerate(node.contacts.buckets()):
            verified = sum(contact.verified for contact in bucket)
            counts = {"index": index, "count": len(bucket), "verified": verified}
            rest = {"unverified": len(bucket) - verified, **_ages(bucket)}
            # Nothing is refreshed here, so the latest word of a contact is the last activity.
            activity = rest["last_inbound_min_secs"]
            idle = {"last_activity_secs_ago": activity, "last_refresh_secs_ago": None}
            rows.append({**counts, **rest, **idle})
        return success({"buckets": rows})

    node.kad.commands.ask(call.exchange, listed)


def _routing_nodes(node: Node, call: Call) -> None:
    text = parse_qs(call.exchange.request.query).get("bucket", [""])[-1]
    if not (text.isascii() and text.isdigit()) or len(text) > 3 or int(text) > 127:
        raise ApiError(400)
    number = int(text)
    wanted = [
        "kad_id_hex",
        "udp_dest_b64",
        "udp_dest_short",
        "kad_version",
        "verified",
        "failures",
        "last_seen_secs_ago",
        "last_inbound_secs_ago",
    ]

    def listed() -> Response:
        peers = [_peer(contact) for contact in node.contacts.buckets()[number]]
        nodes = [{key: peer[key] for key in wanted} for peer in peers]
        return success({"bucket": number, "nodes": nodes})

    node.kad.commands.ask(call.exchange, listed)


def _lookup_once(node: Node, call: Call) -> None:
    wanted = call.body().get("target_id_hex")
    target = node.contacts.own_id if wanted is None else checked_id(wanted)

    def looked_up() -> Response:
        node.kad.look_up()
        node.parts.tracing.info(
            "kad::service", "lookup finished", event="lookup_debug_finished", target=target
        )
        return success({"target_id_hex": target})

    node.kad.commands.ask(call.exchange, looked_up)


def _probe_peer(node: Node, call: Call) -> None:
    body = call.body()
    destination = field(body, "udp_dest_b64", str)
    keyword_id = checked_id(body.get("keyword_id_hex"))
    checked_id(body.get("file_id_hex"))
    field(body, "file_size", int)
    if not field(body, "filename", str).strip():
        raise ApiError(400)

    def probed() -> Response:
        found = any(c.destination == destination for c in node.contacts.by_id.values())
        if found:
            node.keywords.search(keyword_id)
        return success({"queued": found, "peer_found": found})

    node.kad.commands.ask(call.exchange, probed)


KAD_ROUTES: dict[tuple[str, str], Route] = {
    ("POST", "/kad/publish_keyword"): Route("bearer", _publish_keyword, _BODY),
    ("POST", "/kad/search_keyword"): Route("bearer", _search_keyword, _BODY),
    ("GET", "/kad/keyword_results/:"): Route("bearer", _keyword_results),
    ("GET", "/kad/peers"): Route("bearer", _peers),
    ("GET", "/searches"): Route("bearer", _searches),
    ("GET", "/searches/:"): Route("bearer", _search),
    ("POST", "/searches/:/stop"): Route("bearer", _stop_search),
    ("DELETE", "/searches/:"): Route("bearer", _delete_search),
    ("GET", "/debug/routing/summary"): Route("bearer", _routing_summary),
    ("GET", "/debug/routing/buckets"): Route("bearer", _routing_buckets),
    ("GET", "/debug/routing/nodes"): Route("bearer", _routing_nodes),
    ("POST", "/debug/lookup_once"): Route("bearer", _lookup_once, _BODY),
    ("POST", "/debug/probe_peer"): Route("bearer", _probe_peer, _BODY),
}
