/*
 * The packet rules; see forward.h. The checks come in the order of the counters (shared/counters.h). Those that are
 * cheap and say most about the sender come first, so that the packet of a stranger is not even parsed.
 */
#include "forward.h"
#include "probe.h"
#include "tcp-udp.h"

static enum verdict drop(struct outcome *out, enum counter why)
{
	out->counter = why;
	return DROP;
}

static bool in_prefix(uint32_t address, uint32_t network, uint32_t length)
{
	uint32_t mask = ipv4_mask(length);

	return (address & mask) == (network & mask);
}

static bool in_own_subnet(const struct self *self, uint32_t address)
{
	return in_prefix(address, self->subnet, self->subnet_length);
}

/* The directed broadcast of a prefix; a /31 or /32 has none (RFC 3021). */
static bool is_broadcast_of(uint32_t address, uint32_t network, uint32_t length)
{
	return length < 31 && address == (network | ~ipv4_mask(length));
}

/* Whether the address is a broadcast of any prefix that this node knows; `r` may be NULL. */
static bool is_broadcast(const struct self *self, const struct route *r, uint32_t address)
{
	if (is_broadcast_of(address, self->network, self->network_length) ||
	    is_broadcast_of(address, self->subnet, self->subnet_length))
		return true;
	return r != NULL && is_broadcast_of(address, r->address[0], r->length);
}

/* Drops the packet, and has the sender told if the rules of ICMP allow it. */
static enum verdict refuse(struct outcome *out, enum counter why, struct icmp_error error, const struct packet *p,
			   const struct self *self, const struct route *r)
{
	const struct ipv4 *h = &out->header;

	out->counter = why;
	out->error = error;
	if (is_broadcast(self, r, h->source) || is_broadcast(self, r, h->destination))
		return DROP;
	return icmp_may_reply(p, h) ? REPLY_ICMP : DROP;
}

enum verdict forward_refuse_size(struct packet *p, size_t longest, const struct self *self, const struct route *r,
				 struct outcome *out)
{
	const struct icmp_error too_long = {
		.type = ICMP_UNREACHABLE,
		.code = ICMP_CODE_FRAGMENTATION_NEEDED,
		.mtu = (uint16_t)longest, /* below the packet's length, which fits 16 bits */
	};

	return refuse(out, tx_oversize, too_long, p, self, r);
}

/*
 * The longest packet with DF. What is too long for the kernel engine alone is not sent either: its sender would go on
 * so, and all of its packets would take the slow path.
 */
static size_t longest_with_df(const struct self *self, const struct peer *peer)
{
	const uint32_t by_kernel = self->longest_received - KERNEL_EXTRA_BYTES;

	return peer->engine == PEER_ENGINE_KERNEL && by_kernel < self->mtu ? by_kernel : self->mtu;
}

enum verdict forward_outbound(struct packet *p, size_t segment_bytes, const struct self *self,
			      const struct route_table *routes, struct outcome *out)
{
	static const enum counter faults[IPV4_FAULTS] = {
		[IPV4_SHORT] = tx_short,        [IPV4_BAD_VERSION] = tx_bad_version,  [IPV4_BAD_IHL] = tx_bad_ihl,
		[IPV4_BAD_LENGTH] = tx_bad_len, [IPV4_BAD_CHECKSUM] = tx_bad_csum,
	};
	const struct icmp_error net_unreachable = { .type = ICMP_UNREACHABLE, .code = ICMP_CODE_NETWORK };
	const struct icmp_error time_exceeded = { .type = ICMP_TIME_EXCEEDED, .code = ICMP_CODE_TTL };
	struct ipv4 *h = &out->header;

	*out = (struct outcome){ .counter = tx_ok };
	if (self->gate != GATE_OPEN)
		return drop(out, self->gate == GATE_FENCED ? tx_fenced : tx_orphaned);
	enum ipv4_fault fault = ipv4_parse(p, h);
	if (fault != IPV4_SOUND)
		return drop(out, faults[fault]);
	p->length = h->total_bytes;
	if (ipv4_is_martian(h->source))
		return drop(out, tx_bad_src);
	if (!(self->flags & FLAG_NO_SOURCE_CHECK) && !in_own_subnet(self, h->source))
		return drop(out, tx_spoof_src);
	/* A packet for our own subnet would come back through the bridge and the TUN at once. */
	const struct route *r = in_own_subnet(self, h->destination) ? NULL : route_table_find(routes, h->destination);
	if (r == NULL)
		return refuse(out, tx_noroute, net_unreachable, p, self, NULL);
	if (h->ttl <= 1)
		return refuse(out, tx_ttl, time_exceeded, p, self, r);
	const struct peer *peer = route_table_peer(routes, r);
	const size_t longest = longest_with_df(self, peer);
	if (h->dont_fragment && (segment_bytes == 0 ? p->length : segment_bytes) > longest)
		return forward_refuse_size(p, longest, self, r, out);
	ipv4_decrement_ttl(p);
	out->endpoint = (struct peer_endpoint){ .address = peer->endpoint4, .port = peer->port4, .peer = r->peer };
	return SEND_TO_PEER;
}

/* The checks before any byte of the datagram is read; rx_ok if it may be parsed. */
static enum counter check_datagram(const struct packet *p, const struct outer *outer, const struct self *self,
				   const struct peer *peer)
{
	/* What arrived whole is taken, because peers may have a longer tunnel MTU. Later links cut it, or refuse it. */
	if (outer->truncated || p->length > self->longest_received)
		return rx_oversize;
	if (p->length < IPV4_HEADER_BYTES)
		return rx_short;
	/* Our own address as outer source is forged, even if a table lists it. */
	return peer == NULL || outer->source == self->public_ip ? rx_not_member : rx_ok;
}

/*
 * A probe names the prefix of its sender, because leases of several peers may have one address for a while. It is taken
 * from the peer that has this prefix and this address.
 */
static enum verdict take_probe(const struct packet *p, const struct outer *outer, const struct route_table *routes,
			       struct outcome *out)
{
	struct probe probe;

	if (packet_u8(p, 0) != PROBE_TYPE)
		return drop(out, rx_bad_type);
	if (!probe_read(p, &probe))
		return drop(out, rx_bad_probe);
	const struct route *r = route_table_find(routes, probe.prefix);
	if (r == NULL || r->length != probe.prefix_length || route_table_peer(routes, r)->endpoint4 != outer->source)
		return drop(out, rx_bad_probe);
	out->counter = rx_probe;
	out->sender = r->peer;
	return TAKE_PROBE;
}

/* The checks of the inner addresses, options and fragments; rx_ok if the packet may pass. */
static enum counter check_inner(const struct packet *p, const struct ipv4 *h, const struct outer *outer,
				const struct self *self, const struct route_table *routes, uint32_t *sender)
{
	if (h->ttl == 0)
		return rx_ttl;
	if (ipv4_is_martian(h->source))
		return rx_martian;
	if (!(self->flags & FLAG_NO_SOURCE_CHECK)) {
		const struct route *of_source = route_table_find(routes, h->source);
		if (of_source == NULL || route_table_peer(routes, of_source)->endpoint4 != outer->source)
			return rx_spoof_src;
		*sender = of_source->peer;
	}
	if (!(self->flags & FLAG_NO_DESTINATION_CHECK) && !in_own_subnet(self, h->destination))
		return rx_bad_dst;
	/* No kernel passes a directed broadcast on unless it is told to (bc_forwarding). */
	if (is_broadcast(self, NULL, h->destination))
		return rx_bad_dst;
	if (ipv4_has_source_route(p, h))
		return rx_srcroute;
	return ipv4_fragment_impossible(h) ? rx_bad_frag : rx_ok;
}

enum verdict forward_inbound(struct packet *p, const struct outer *outer, const struct self *self,
			     const struct route_table *routes, struct outcome *out)
{
	static const enum counter faults[IPV4_FAULTS] = {
		[IPV4_SHORT] = rx_short,        [IPV4_BAD_VERSION] = rx_bad_version,  [IPV4_BAD_IHL] = rx_bad_ihl,
		[IPV4_BAD_LENGTH] = rx_bad_len, [IPV4_BAD_CHECKSUM] = rx_bad_csum,
	};
	struct ipv4 *h = &out->header;

	*out = (struct outcome){ .counter = rx_ok };
	if (self->gate != GATE_OPEN)
		return drop(out, self->gate == GATE_FENCED ? rx_fenced : rx_orphaned);
	const struct peer *peer = route_table_by_endpoint(routes, outer->source);
	enum counter why = check_datagram(p, outer, self, peer);
	if (why != rx_ok)
		return drop(out, why);
	if (probe_is_typed(p))
		return take_probe(p, outer, routes, out);
	enum ipv4_fault fault = ipv4_parse(p, h);
	if (fault != IPV4_SOUND)
		return drop(out, faults[fault]);
	out->sender = (uint32_t)(peer - routes->slot->peers);
	why = check_inner(p, h, outer, self, routes, &out->sender);
	if (why != rx_ok)
		return drop(out, why);
	out->notes = (struct notes){
		.trimmed = h->total_bytes < p->length,
		.options = h->header_bytes > IPV4_HEADER_BYTES,
		.unexpected_port = outer->port != peer->port4,
	};
	p->length = h->total_bytes;
	return WRITE_TO_TUN;
}
