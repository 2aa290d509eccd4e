/*
 * Merging of packets; see coalesce.h. A packet is a candidate when the kernel would cut a super-packet into packets of
 * its kind; it follows a burst when it is what the kernel would cut next. Its checksum is verified before either: the
 * kernel makes new checksums, and a damaged packet would come out with a right one.
 */
#include "coalesce.h"
#include "checksum.h"
#include "transport.h"

#define AT_TOS 1u
#define AT_TOTAL 2u
#define AT_IDENTIFICATION 4u
#define AT_FRAGMENT 6u
#define AT_TTL 8u
#define AT_CHECKSUM 10u
/* What a candidate is, as far as merging asks. */
struct candidate {
	const struct packet *p;
	const struct ipv4 *h;
	struct flow flow;
	size_t header_bytes;
	size_t payload_bytes;
	uint32_t sequence;
	size_t payload_min; /* with less it can only be the last of a burst: vnet_header_check() */
	bool has_ports;
	bool is_last; /* FIN or PSH: what is merged ends with it */
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
	/* Also nothing in the bits that are still reserved. */
	return c->header_bytes >= at + TCP_HEADER_MIN && (packet_u8(c->p, at + TCP_AT_WORDS) & 0x0f) == 0 &&
	       (flags & (TCP_SYN | TCP_RST | TCP_URG | TCP_CWR | TCP_ACK)) == TCP_ACK &&
	       packet_u16(c->p, at + TCP_AT_URGENT) == 0;
}

static bool udp_candidate(struct candidate *c)
{
	const size_t at = c->h->header_bytes;

	c->header_bytes = at + UDP_HEADER_BYTES;
	c->payload_min = GSO_SIZE_MIN_UDP;
	/* 0 is no checksum, and it stays none only when nobody makes a new one. */
	return packet_u16(c->p, at + UDP_AT_LENGTH) == c->p->length - at && packet_u16(c->p, at + UDP_AT_CHECKSUM) != 0;
}

/* Whether the packet may be part of a super-packet, its checksum aside. */
static bool make_candidate(struct candidate *c, const struct coalescer *co)
{
	const struct ipv4 *h = c->h;

	if (h->header_bytes != IPV4_HEADER_BYTES || ipv4_is_fragment(h) || c->p->length != h->total_bytes)
		return false;
	/* A packet may end before its ports; the 0 that is read then is no port. */
	c->has_ports = (h->protocol == PROTOCOL_TCP || h->protocol == PROTOCOL_UDP) &&
		       packet_holds(c->p, h->header_bytes + TRANSPORT_AT_PORTS, sizeof c->flow.ports);
	c->flow.ports = packet_u32(c->p, h->header_bytes + TRANSPORT_AT_PORTS);
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

/* Headers alike in everything that is the same in all segments of a super-packet. */
static bool headers_agree(const struct burst *b, const struct candidate *c)
{
	const struct packet *p = &b->head, *q = c->p;
	const size_t at = IPV4_HEADER_BYTES;

	if (b->header_bytes != c->header_bytes || packet_u8(p, AT_TOS) != packet_u8(q, AT_TOS) ||
	    packet_u8(p, AT_TTL) != packet_u8(q, AT_TTL) || packet_u16(p, AT_FRAGMENT) != packet_u16(q, AT_FRAGMENT))
		return false;
	/* The kernel counts it up; where nothing may be cut in pieces it says nothing (RFC 6864 section 4). */
	if (!c->h->dont_fragment && packet_u16(q, AT_IDENTIFICATION) != b->identification)
		return false;
	if (b->flow.protocol == PROTOCOL_UDP)
		return true;
	const uint8_t ends = TCP_FIN | TCP_PSH;
	return (packet_u8(p, at + TCP_AT_FLAGS) | ends) == (packet_u8(q, at + TCP_AT_FLAGS) | ends) &&
	       c->sequence == b->sequence && packet_equal(p, at + TCP_AT_ACKNOWLEDGED, q, at + TCP_AT_ACKNOWLEDGED, 4) &&
	       packet_equal(p, at + TCP_AT_WINDOW, q, at + TCP_AT_WINDOW, 2) &&
	       packet_equal(p, at + TCP_HEADER_MIN, q, at + TCP_HEADER_MIN, c->header_bytes - at - TCP_HEADER_MIN);
}

static bool follows(const struct burst *b, const struct candidate *c)
{
	return b->segments < GSO_SEGMENTS_MAX && c->payload_bytes <= b->payload_bytes &&
	       b->bytes + c->payload_bytes <= IPV4_BYTES_MAX && headers_agree(b, c);
}

/* Makes the headers of the first packet those of all, for the kernel to cut (the reverse of super_cut()). */
static void make_super(struct burst *b)
{
	struct packet *p = &b->head;
	const size_t at = IPV4_HEADER_BYTES;
	const bool is_udp = b->flow.protocol == PROTOCOL_UDP;
	const size_t checksum = is_udp ? UDP_AT_CHECKSUM : TCP_AT_CHECKSUM;
	const struct ipv4 h = { .source = b->flow.source, .destination = b->flow.destination, .protocol = b->flow.protocol };

	packet_put_u16(p, AT_CHECKSUM,
		       checksum_adjust(packet_u16(p, AT_CHECKSUM), packet_u16(p, AT_TOTAL), (uint16_t)b->bytes));
	packet_put_u16(p, AT_TOTAL, (uint16_t)b->bytes);
	if (is_udp)
		packet_put_u16(p, at + UDP_AT_LENGTH, (uint16_t)(b->bytes - at));
	packet_put_u16(p, at + checksum, transport_pseudo_sum(&h, b->bytes - at));
	b->vnet = (struct vnet_header){
		.flags = VNET_NEEDS_CHECKSUM,
		.gso_type = is_udp ? GSO_UDP_L4 : GSO_TCP4,
		.header_bytes = (uint16_t)b->header_bytes,
		.gso_size = (uint16_t)b->payload_bytes,
		.checksum_start = (uint16_t)at,
		.checksum_offset = (uint16_t)checksum,
	};
}

static void write_burst(struct coalescer *c, struct burst *b)
{
	if (b->segments > 1)
		make_super(b);
	c->write(c->context, b);
}

static void write_waiting(struct coalescer *c, uint32_t i)
{
	c->waiting &= ~(UINT32_C(1) << i);
	write_burst(c, &c->burst[i]);
}

static void count(struct burst *b, const struct packet *p, const struct beside *beside)
{
	b->segments++;
	b->received_bytes += p->length;
	b->trimmed += beside->trimmed;
	b->options += beside->options;
	b->strange_ports += beside->strange_port;
}

static void begin(struct burst *b, const struct candidate *c, const struct beside *beside)
{
	b->vnet = (struct vnet_header){ 0 };
	b->segments = 0;
	b->bytes = c->p->length;
	b->pieces = 2;
	b->piece[1] = (struct iovec){ .iov_base = c->p->bytes, .iov_len = c->p->length };
	b->received_bytes = 0;
	b->trimmed = b->options = b->strange_ports = 0;
	b->flow = c->flow;
	b->head = *c->p;
	b->header_bytes = c->header_bytes;
	b->payload_bytes = c->payload_bytes;
	b->sequence = c->sequence + (uint32_t)c->payload_bytes;
	b->identification = (uint16_t)(packet_u16(c->p, AT_IDENTIFICATION) + 1);
	count(b, c->p, beside);
}

static void append(struct burst *b, const struct candidate *c, const struct beside *beside)
{
	const size_t flags = IPV4_HEADER_BYTES + TCP_AT_FLAGS;

	b->piece[b->pieces++] = (struct iovec){ .iov_base = c->p->bytes + c->header_bytes, .iov_len = c->payload_bytes };
	b->bytes += c->payload_bytes;
	b->sequence += (uint32_t)c->payload_bytes;
	b->identification++;
	if (b->flow.protocol == PROTOCOL_TCP)
		packet_put_u8(&b->head, flags, packet_u8(&b->head, flags) | packet_u8(c->p, flags));
	count(b, c->p, beside);
}

/* The burst of the flow that waits, or FLOWS_MAX. */
static uint32_t find(const struct coalescer *c, const struct flow *flow)
{
	for (uint32_t left = c->waiting; left != 0; left &= left - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(left);
		if (flow_equal(&c->burst[i].flow, flow))
			return i;
	}
	return FLOWS_MAX;
}

static uint32_t take_place(struct coalescer *c)
{
	const uint32_t all = (UINT32_C(1) << FLOWS_MAX) - 1;

	if (c->waiting == all) {
		c->next = (c->next + 1) % FLOWS_MAX;
		write_waiting(c, c->next);
	}
	return (uint32_t)__builtin_ctz(~c->waiting);
}

/* Alone, after what waits of its flow. Without ports (a fragment, a stump) any flow between the two hosts may be it. */
static void add_alone(struct coalescer *c, const struct candidate *one, const struct beside *beside)
{
	struct burst b;

	for (uint32_t left = c->waiting; left != 0; left &= left - 1) {
		uint32_t i = (uint32_t)__builtin_ctz(left);
		const struct flow *f = &c->burst[i].flow;
		if (f->source == one->flow.source && f->destination == one->flow.destination &&
		    (!one->has_ports || (f->ports == one->flow.ports && f->protocol == one->flow.protocol)))
			write_waiting(c, i);
	}
	begin(&b, one, beside);
	write_burst(c, &b);
}

void coalesce_add(struct coalescer *c, const struct packet *p, const struct ipv4 *h, uint32_t peer,
		  const struct beside *beside)
{
	struct candidate one = {
		.p = p,
		.h = h,
		.flow = { .peer = peer, .source = h->source, .destination = h->destination, .protocol = h->protocol },
	};

	if (!make_candidate(&one, c)) {
		add_alone(c, &one, beside);
		return;
	}
	uint32_t i = find(c, &one.flow);
	bool goes_on = i < FLOWS_MAX && follows(&c->burst[i], &one);
	/* A short one can only be the last: alone it needs no look at its checksum. */
	if ((!goes_on && (one.payload_bytes < one.payload_min || one.is_last)) || transport_sum(p, h) != 0xffff) {
		add_alone(c, &one, beside);
		return;
	}
	if (goes_on) {
		append(&c->burst[i], &one, beside);
	} else {
		if (i < FLOWS_MAX)
			write_waiting(c, i);
		i = take_place(c);
		begin(&c->burst[i], &one, beside);
		c->waiting |= UINT32_C(1) << i;
	}
	struct burst *b = &c->burst[i];
	if (one.is_last || one.payload_bytes < b->payload_bytes || b->segments == GSO_SEGMENTS_MAX)
		write_waiting(c, i);
}

void coalesce_flush(struct coalescer *c)
{
	while (c->waiting != 0)
		write_waiting(c, (uint32_t)__builtin_ctz(c->waiting));
}
