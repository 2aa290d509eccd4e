/*
 * Merging of packets; see coalesce.h. A packet is a candidate if the kernel could have cut a GSO packet into packets of
 * its kind. It follows a GRO packet that waits if the kernel would cut it next. Its checksum is verified before: the
 * kernel makes new checksums when it cuts, and would give a damaged packet a right one.
 */
#include "coalesce.h"
#include "checksum.h"
#include "pseudo-header.h"
#include "tcp-udp.h"

/* What merging needs to know of a packet. */
struct candidate {
	const struct packet *p;
	const struct ipv4 *h;
	struct flow flow;
	size_t header_bytes;
	size_t payload_bytes;
	uint32_t sequence;
	size_t payload_min; /* a shorter one can only be the last segment: vnet_header_check() */
	bool has_ports;
	bool is_last; /* FIN or PSH: no packet may follow */
};

static bool flow_equal(const struct flow *a, const struct flow *b)
{
	return a->peer == b->peer && a->source == b->source && a->destination == b->destination &&
	       a->ports == b->ports && a->protocol == b->protocol;
}

static bool tcp_candidate(struct candidate *c)
{
	const size_t at = c->h->header_bytes;
	uint8_t flags = packet_u8(c->p, at + TCP_AT_FLAGS);

	c->header_bytes = at + tcp_header_bytes(c->p, at);
	c->payload_min = GSO_SIZE_MIN_TCP;
	c->sequence = packet_u32(c->p, at + TCP_AT_SEQUENCE);
	c->is_last = (flags & (TCP_FIN | TCP_PSH)) != 0;
	/* The reserved bits must be 0 too. */
	return c->header_bytes >= at + TCP_HEADER_MIN && (packet_u8(c->p, at + TCP_AT_WORDS) & 0x0f) == 0 &&
	       (flags & (TCP_SYN | TCP_RST | TCP_URG | TCP_CWR | TCP_ACK)) == TCP_ACK &&
	       packet_u16(c->p, at + TCP_AT_URGENT) == 0;
}

static bool udp_candidate(struct candidate *c)
{
	const size_t at = c->h->header_bytes;

	c->header_bytes = at + UDP_HEADER_BYTES;
	c->payload_min = GSO_SIZE_MIN_UDP;
	/* A checksum of 0 means none. The kernel would make one when it cuts. */
	return packet_u16(c->p, at + UDP_AT_LENGTH) == c->p->length - at && packet_u16(c->p, at + UDP_AT_CHECKSUM) != 0;
}

/* Whether the packet may be merged; its checksum is not verified here. */
static bool make_candidate(struct candidate *c, const struct coalescer *co)
{
	const struct ipv4 *h = c->h;

	if (h->header_bytes != IPV4_HEADER_BYTES || ipv4_is_fragment(h) || c->p->length != h->total_bytes)
		return false;
	/* A packet may end before its ports. Ports of 0 are read then, which say nothing about its flow. */
	c->has_ports = (h->protocol == PROTOCOL_TCP || h->protocol == PROTOCOL_UDP) &&
		       packet_holds(c->p, h->header_bytes + L4_AT_PORTS, sizeof c->flow.ports);
	c->flow.ports = packet_u32(c->p, h->header_bytes + L4_AT_PORTS);
	bool is_sound = false;
	if (h->protocol == PROTOCOL_TCP)
		is_sound = tcp_candidate(c);
	else if (h->protocol == PROTOCOL_UDP)
		is_sound = co->merges_udp && udp_candidate(c);
	if (!is_sound || c->header_bytes >= c->p->length)
		return false;
	c->payload_bytes = c->p->length - c->header_bytes;
	return true;
}

/* Whether the headers agree in everything that all segments of one GSO packet have in common. */
static bool headers_agree(const struct gro_packet *g, const struct candidate *c)
{
	const struct packet *p = &g->head, *q = c->p;
	const size_t at = IPV4_HEADER_BYTES, ack = at + TCP_AT_ACKNOWLEDGED, window = at + TCP_AT_WINDOW;
	const uint8_t ends = TCP_FIN | TCP_PSH;

	if (g->header_bytes != c->header_bytes || !packet_equal(p, IPV4_AT_TOS, q, IPV4_AT_TOS, 1) ||
	    !packet_equal(p, IPV4_AT_FRAGMENT, q, IPV4_AT_FRAGMENT, 2) ||
	    !packet_equal(p, IPV4_AT_TTL, q, IPV4_AT_TTL, 1))
		return false;
	/* The kernel counts the identification up. It has no meaning in a packet with DF (RFC 6864 section 4). */
	if (!c->h->dont_fragment && packet_u16(q, IPV4_AT_IDENTIFICATION) != g->identification)
		return false;
	if (g->flow.protocol == PROTOCOL_UDP)
		return true;
	return (packet_u8(p, at + TCP_AT_FLAGS) | ends) == (packet_u8(q, at + TCP_AT_FLAGS) | ends) &&
	       c->sequence == g->sequence && packet_equal(p, ack, q, ack, 4) && packet_equal(p, window, q, window, 2) &&
	       packet_equal(p, at + TCP_HEADER_MIN, q, at + TCP_HEADER_MIN, c->header_bytes - at - TCP_HEADER_MIN);
}

static bool follows(const struct gro_packet *g, const struct candidate *c)
{
	return g->segments < GSO_SEGMENTS_MAX && c->payload_bytes <= g->payload_bytes &&
	       g->bytes + c->payload_bytes <= IPV4_BYTES_MAX && headers_agree(g, c);
}

/* Makes the headers of the first packet those of the GSO packet: the reverse of tso_packet_cut(). */
static void make_gso_headers(struct gro_packet *g)
{
	struct packet *p = &g->head;
	const size_t at = IPV4_HEADER_BYTES;
	const bool is_udp = g->flow.protocol == PROTOCOL_UDP;
	const size_t checksum = is_udp ? UDP_AT_CHECKSUM : TCP_AT_CHECKSUM;
	const struct flow *f = &g->flow;
	const struct ipv4 h = { .source = f->source, .destination = f->destination, .protocol = f->protocol };

	ipv4_put_u16(p, IPV4_AT_TOTAL, (uint16_t)g->bytes);
	if (is_udp)
		packet_put_u16(p, at + UDP_AT_LENGTH, (uint16_t)(g->bytes - at));
	packet_put_u16(p, at + checksum, pseudo_header_sum(&h, g->bytes - at));
	g->vnet = (struct vnet_header){
		.flags = VNET_NEEDS_CHECKSUM,
		.gso_type = is_udp ? GSO_UDP_L4 : GSO_TCP4,
		.header_bytes = (uint16_t)g->header_bytes,
		.gso_size = (uint16_t)g->payload_bytes,
		.checksum_start = (uint16_t)at,
		.checksum_offset = (uint16_t)checksum,
	};
}

static void write_packet(struct coalescer *c, struct gro_packet *g)
{
	if (g->segments > 1)
		make_gso_headers(g);
	c->write(c->context, g);
}

static void write_waiting(struct coalescer *c, uint32_t i)
{
	c->waiting &= ~(UINT32_C(1) << i);
	write_packet(c, &c->packet[i]);
}

static void count_notes(struct gro_packet *g, const struct packet *p, const struct notes *notes)
{
	g->segments++;
	g->received_bytes += p->length;
	g->trimmed += notes->trimmed;
	g->options += notes->options;
	g->unexpected_ports += notes->unexpected_port;
}

static void begin_packet(struct gro_packet *g, const struct candidate *c, const struct notes *notes)
{
	g->vnet = (struct vnet_header){ 0 };
	g->segments = 0;
	g->bytes = c->p->length;
	g->iovs = 2;
	g->iov[1] = (struct iovec){ .iov_base = c->p->bytes, .iov_len = c->p->length };
	g->received_bytes = 0;
	g->trimmed = g->options = g->unexpected_ports = 0;
	g->flow = c->flow;
	g->head = *c->p;
	g->header_bytes = c->header_bytes;
	g->payload_bytes = c->payload_bytes;
	g->sequence = c->sequence + (uint32_t)c->payload_bytes;
	g->identification = (uint16_t)(packet_u16(c->p, IPV4_AT_IDENTIFICATION) + 1);
	count_notes(g, c->p, notes);
}

static void append_payload(struct gro_packet *g, const struct candidate *c, const struct notes *notes)
{
	const size_t flags = IPV4_HEADER_BYTES + TCP_AT_FLAGS;

	g->iov[g->iovs++] = (struct iovec){ .iov_base = c->p->bytes + c->header_bytes, .iov_len = c->payload_bytes };
	g->bytes += c->payload_bytes;
	g->sequence += (uint32_t)c->payload_bytes;
	g->identification++;
	if (g->flow.protocol == PROTOCOL_TCP)
		packet_put_u8(&g->head, flags, packet_u8(&g->head, flags) | packet_u8(c->p, flags));
	count_notes(g, c->p, notes);
}

/* The number of the packet of this flow that waits, or FLOWS_MAX. */
static uint32_t find_waiting(const struct coalescer *c, const struct flow *flow)
{
	for (uint32_t left = c->waiting; left != 0; left &= left - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(left);
		if (flow_equal(&c->packet[i].flow, flow))
			return i;
	}
	return FLOWS_MAX;
}

static uint32_t take_entry(struct coalescer *c)
{
	const uint32_t all = (UINT32_C(1) << FLOWS_MAX) - 1;

	if (c->waiting == all) {
		c->next = (c->next + 1) % FLOWS_MAX;
		write_waiting(c, c->next);
	}
	return (uint32_t)__builtin_ctz(~c->waiting);
}

/*
 * Writes the packet unmerged, after what waits of its flow. A packet without ports (a fragment, or one that ends too
 * early) may belong to any flow between the two hosts.
 */
static void write_alone(struct coalescer *c, const struct candidate *one, const struct notes *notes)
{
	struct gro_packet g;

	for (uint32_t left = c->waiting; left != 0; left &= left - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(left);
		const struct flow *f = &c->packet[i].flow;
		if (f->source == one->flow.source && f->destination == one->flow.destination &&
		    (!one->has_ports || (f->ports == one->flow.ports && f->protocol == one->flow.protocol)))
			write_waiting(c, i);
	}
	begin_packet(&g, one, notes);
	write_packet(c, &g);
}

void coalesce_add(struct coalescer *c, const struct packet *p, const struct ipv4 *h, uint32_t peer,
		  const struct notes *notes)
{
	struct candidate one = {
		.p = p,
		.h = h,
		.flow = { .peer = peer, .source = h->source, .destination = h->destination, .protocol = h->protocol },
	};

	if (!make_candidate(&one, c)) {
		write_alone(c, &one, notes);
		return;
	}
	uint32_t i = find_waiting(c, &one.flow);
	bool goes_on = i < FLOWS_MAX && follows(&c->packet[i], &one);
	/* A packet that nothing may follow is written unmerged, so nobody needs to verify its checksum. */
	const bool is_single = !goes_on && (one.payload_bytes < one.payload_min || one.is_last);
	if (is_single || pseudo_header_packet_sum(p, h) != 0xffff) {
		write_alone(c, &one, notes);
		return;
	}
	if (goes_on) {
		append_payload(&c->packet[i], &one, notes);
	} else {
		if (i < FLOWS_MAX)
			write_waiting(c, i);
		i = take_entry(c);
		begin_packet(&c->packet[i], &one, notes);
		c->waiting |= UINT32_C(1) << i;
	}
	struct gro_packet *g = &c->packet[i];
	if (one.is_last || one.payload_bytes < g->payload_bytes || g->segments == GSO_SEGMENTS_MAX)
		write_waiting(c, i);
}

void coalesce_flush(struct coalescer *c)
{
	while (c->waiting != 0)
		write_waiting(c, (uint32_t)__builtin_ctz(c->waiting));
}
