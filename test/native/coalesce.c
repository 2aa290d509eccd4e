/* coalesce.c: which packets are merged and which are not, rule by rule, and the order within a flow. */
#include "collector.h"
#include "pseudo-header.h"
#include "tcp-udp.h"
#include "test.h"

struct stream {
	struct suite *s;
	struct collector collector;
	uint8_t *memory;
	size_t used;
};

#define MEMORY_BYTES (4u << 20)

static const struct notes nothing = { 0 };

static struct stream stream_open(struct suite *s)
{
	struct stream st = { .s = s, .memory = malloc(MEMORY_BYTES) };

	collector_open(&st.collector, true);
	return st;
}

/* Flushes and compares; returns how many writes there were. */
static size_t stream_close(struct stream *st)
{
	coalesce_flush(&st->collector.coalescer);
	CHECK(st->s, collector_agrees(&st->collector));
	size_t writes = st->collector.writes;
	collector_close(&st->collector);
	free(st->memory);
	return writes;
}

/* One packet of TCP or UDP. A field that is zero means the usual value. */
struct part {
	uint8_t protocol; /* 0: TCP */
	uint32_t sequence;
	size_t payload;    /* 0: 1000 */
	size_t total;      /* 0: headers and payload; less: it ends there, whatever is missing */
	uint8_t flags;     /* 0: ACK */
	uint16_t source_port;
	uint16_t identification;
	uint16_t fragment; /* 0: DF; NO_FRAGMENT_BITS: none */
	uint8_t ttl;
	uint8_t tos;
	uint8_t acknowledged;
	uint8_t window;
	uint8_t option; /* of TCP; other than 0: 12 bytes of them */
	uint8_t reserved;
	uint8_t urgent;
	bool is_damaged;
	bool no_checksum;
	bool has_ip_options;
	uint8_t source; /* last byte of the address */
	uint8_t peer;
};

#define NO_FRAGMENT_BITS 0xffff
#define EMPTY 0xffffu

static void put_transport(struct packet *p, const struct part *f, size_t at)
{
	packet_put_u16(p, at, (uint16_t)or_else(f->source_port, 4000));
	packet_put_u16(p, at + 2, 80);
	if (f->protocol == PROTOCOL_UDP) {
		packet_put_u16(p, at + 4, (uint16_t)(p->length - at));
		return;
	}
	packet_put_u32(p, at + 4, f->sequence);
	packet_put_u32(p, at + 8, f->acknowledged);
	packet_put_u8(p, at + 12, (uint8_t)((f->option ? 8 : 5) << 4 | f->reserved));
	packet_put_u8(p, at + 13, (uint8_t)or_else(f->flags, TCP_ACK));
	packet_put_u16(p, at + 14, f->window);
	packet_put_u16(p, at + 18, f->urgent);
	if (f->option)
		packet_put_u32(p, at + 24, f->option);
}

static void add(struct stream *st, struct part f)
{
	const bool is_udp = f.protocol == PROTOCOL_UDP;
	const size_t ip = f.has_ip_options ? 24 : 20;
	const size_t headers = ip + (is_udp ? 8u : f.option ? 32u : 20u);
	const size_t payload = f.payload == EMPTY ? 0 : or_else(f.payload, 1000);
	struct recipe r = { .source = ADDRESS(10, 5, 2, f.source), .destination = ADDRESS(10, 5, 1, 9), .header = ip,
			    .protocol = (uint8_t)or_else(f.protocol, PROTOCOL_TCP), .ttl = f.ttl,
			    .total = f.total ? f.total : headers + payload,
			    .fragment = f.fragment == NO_FRAGMENT_BITS ? 0 : (uint16_t)or_else(f.fragment, FRAGMENT_DF) };
	struct packet p = packet_make(st->memory + st->used, &r);
	struct ipv4 h;

	for (size_t at = headers; at < p.length; at++)
		packet_put_u8(&p, at, (uint8_t)suite_random(st->s));
	packet_put_u8(&p, 1, f.tos);
	packet_put_u16(&p, 4, f.identification);
	packet_put_u16(&p, 10, 0);
	packet_put_u16(&p, 10, checksum_make(&p, 0, ip));
	if (ipv4_parse(&p, &h) != IPV4_SOUND)
		abort();
	const size_t field = ip + (is_udp ? 6 : 16);
	put_transport(&p, &f, ip);
	packet_put_u16(&p, field, 0);
	packet_put_u16(&p, field, (uint16_t)~pseudo_header_packet_sum(&p, &h));
	if (f.no_checksum)
		packet_put_u16(&p, field, 0);
	if (f.is_damaged)
		packet_put_u8(&p, p.length - 1, (uint8_t)(packet_u8(&p, p.length - 1) + 1));
	st->used += p.length;
	collector_expect(&st->collector, &p);
	coalesce_add(&st->collector.coalescer, &p, &h, ADDRESS(192, 0, 2, f.peer), &nothing);
}

/* Adds two packets, of which the second differs in one way. Returns how many writes they make. */
static size_t pair(struct suite *s, struct part a, struct part b)
{
	struct stream st = stream_open(s);

	add(&st, a);
	add(&st, b);
	return stream_close(&st);
}

static void merges(struct suite *s)
{
	const struct part first = { 0 };

	CHECK(s, pair(s, first, (struct part){ .sequence = 1000 }) == 1);
	CHECK(s, pair(s, first, (struct part){ .sequence = 1000, .payload = 1 }) == 1);
	CHECK(s, pair(s, first, (struct part){ .sequence = 1000, .flags = TCP_ACK | TCP_PSH }) == 1);
	CHECK(s, pair(s, first, (struct part){ .sequence = 1000, .flags = TCP_ACK | TCP_FIN }) == 1);
	CHECK(s, pair(s, first, (struct part){ .sequence = 1000, .identification = 77 }) == 1);
	CHECK(s, pair(s, (struct part){ .sequence = 0xfffffff0 }, (struct part){ .sequence = 0xfffffff0 + 1000 }) == 1);
	CHECK(s, pair(s, (struct part){ .fragment = NO_FRAGMENT_BITS, .identification = 0xffff },
		      (struct part){ .fragment = NO_FRAGMENT_BITS, .sequence = 1000 }) == 1);
	CHECK(s, pair(s, (struct part){ .option = 1 }, (struct part){ .option = 1, .sequence = 1000 }) == 1);
	CHECK(s, pair(s, (struct part){ .flags = TCP_ACK | TCP_ECE },
		      (struct part){ .flags = TCP_ACK | TCP_ECE, .sequence = 1000 }) == 1);
	CHECK(s, pair(s, (struct part){ .protocol = 17 }, (struct part){ .protocol = 17 }) == 1);
	CHECK(s, pair(s, (struct part){ .protocol = 17 }, (struct part){ .protocol = 17, .payload = 10 }) == 1);
	CHECK(s, pair(s, (struct part){ .protocol = 17, .payload = 22 }, (struct part){ .protocol = 17, .payload = 22 }) == 1);
	CHECK(s, pair(s, (struct part){ .protocol = 17, .payload = 1 }, (struct part){ .protocol = 17, .payload = 1 }) == 1);
}

static void keeps_apart(struct suite *s)
{
	const struct part first = { 0 }, udp = { .protocol = 17 };

#define APART(...) CHECK(s, pair(s, first, (struct part){ .sequence = 1000, __VA_ARGS__ }) == 2)
	CHECK(s, pair(s, first, (struct part){ .sequence = 1001 }) == 2);
	CHECK(s, pair(s, first, (struct part){ .sequence = 999 }) == 2);
	CHECK(s, pair(s, first, first) == 2);
	APART(.payload = 1001);
	APART(.payload = EMPTY);
	APART(.flags = TCP_ACK | TCP_SYN);
	APART(.flags = TCP_ACK | TCP_RST);
	APART(.flags = TCP_ACK | TCP_URG);
	APART(.flags = TCP_ACK | TCP_CWR);
	APART(.flags = TCP_ACK | TCP_ECE);
	APART(.flags = TCP_PSH);
	APART(.reserved = 1);
	APART(.urgent = 1);
	APART(.source_port = 4001);
	APART(.source = 10);
	APART(.peer = 3);
	APART(.ttl = 63);
	APART(.tos = 3);
	APART(.acknowledged = 1);
	APART(.window = 1);
	APART(.option = 1);
	APART(.fragment = NO_FRAGMENT_BITS, .identification = 1);
	APART(.fragment = FRAGMENT_DF | 0x8000);
	APART(.has_ip_options = true);
	APART(.is_damaged = true);
#define UDP_APART(...) CHECK(s, pair(s, udp, (struct part){ .protocol = 17, __VA_ARGS__ }) == 2)
	UDP_APART(.payload = 1001);
	UDP_APART(.no_checksum = true);
	UDP_APART(.is_damaged = true);
	UDP_APART(.fragment = FRAGMENT_MF);
	UDP_APART(.fragment = 125);
	CHECK(s, pair(s, (struct part){ .payload = 535 }, (struct part){ .sequence = 535, .payload = 535 }) == 2);
	CHECK(s, pair(s, (struct part){ .option = 1 }, (struct part){ .option = 2, .sequence = 1000 }) == 2);
	CHECK(s, pair(s, (struct part){ .is_damaged = true }, (struct part){ .sequence = 1000 }) == 2);
	CHECK(s, pair(s, (struct part){ .flags = TCP_ACK | TCP_PSH }, (struct part){ .sequence = 1000 }) == 2);
	CHECK(s, pair(s, (struct part){ .fragment = NO_FRAGMENT_BITS },
		      (struct part){ .fragment = NO_FRAGMENT_BITS, .sequence = 1000, .identification = 2 }) == 2);
}

/* A damaged packet among others is written unmerged, in its place. */
static void damage_takes_only_itself(struct suite *s)
{
	struct stream st = stream_open(s);

	for (uint32_t i = 0; i < 30; i++)
		add(&st, (struct part){ .sequence = i * 1000, .is_damaged = i == 10 });
	CHECK(s, stream_close(&st) == 3);
}

/*
 * Adds four packets of each of two hosts, and after the second ones a packet of another flow that ends early. Returns
 * how many writes they make.
 */
static size_t around_short_packet(struct suite *s, uint8_t protocol, size_t total)
{
	struct stream st = stream_open(s);

	for (uint32_t i = 0; i < 4; i++) {
		add(&st, (struct part){ .protocol = protocol, .sequence = i * 1000, .source = 1 });
		add(&st, (struct part){ .protocol = protocol, .sequence = i * 1000, .source = 2 });
		if (i == 1)
			add(&st, (struct part){ .protocol = protocol, .total = total, .source = 1, .source_port = 4001 });
	}
	return stream_close(&st);
}

/* A packet that ends before its ports may belong to any flow of its hosts. One with ports interrupts no other flow. */
static void short_packet_overtakes_nothing(struct suite *s)
{
	for (size_t total = 20; total < 24; total++) {
		CHECK(s, around_short_packet(s, PROTOCOL_TCP, total) == 4);
		CHECK(s, around_short_packet(s, PROTOCOL_UDP, total) == 4);
	}
	CHECK(s, around_short_packet(s, PROTOCOL_TCP, 24) == 3);
	CHECK(s, around_short_packet(s, PROTOCOL_UDP, 24) == 3);
}

static void limits(struct suite *s)
{
	struct stream st = stream_open(s);

	for (uint32_t i = 0; i < 128; i++)
		add(&st, (struct part){ .sequence = i * 536, .payload = 536 });
	CHECK(s, stream_close(&st) == 2); /* of 64 */
	st = stream_open(s);
	for (uint32_t i = 0; i < 92; i++)
		add(&st, (struct part){ .sequence = i * 1432, .payload = 1432 });
	CHECK(s, stream_close(&st) == 3); /* 45 fit 65,535 bytes */
	st = stream_open(s);
	for (uint32_t i = 0; i < 4; i++)
		add(&st, (struct part){ .sequence = i * 1000, .payload = i == 1 ? 999 : 1000 });
	CHECK(s, stream_close(&st) == 2); /* a short packet ends the first; the sequence numbers after it do not fit */
	st = stream_open(s);
	for (uint16_t i = 0; i < 4 * FLOWS_MAX; i++)
		add(&st, (struct part){ .source_port = (uint16_t)(1 + i % (2 * FLOWS_MAX)),
					.sequence = i < 2 * FLOWS_MAX ? 0 : 1000 });
	CHECK(s, stream_close(&st) > FLOWS_MAX);
}

static void without_uso(struct suite *s)
{
	struct stream st = stream_open(s);

	st.collector.coalescer.merges_udp = false;
	for (int i = 0; i < 5; i++)
		add(&st, (struct part){ .protocol = 17 });
	CHECK(s, stream_close(&st) == 5);
}

/* Each of many flows keeps its order, when they are mixed at random with packets that cannot be merged. */
static void random_mix(struct suite *s)
{
	for (int round = 0; round < 300; round++) {
		struct stream st = stream_open(s);
		uint32_t sequence[24] = { 0 };
		for (int i = 0; i < 400; i++) {
			uint32_t flow = suite_below(s, 1 + (uint32_t)round % 24);
			uint32_t odd = suite_below(s, 40);
			struct part f = { .source_port = (uint16_t)(1 + flow / 2), .sequence = sequence[flow],
					  .protocol = flow % 2 ? 17 : 6, .payload = suite_below(s, 8) ? 1000 : 600,
					  .is_damaged = odd == 0, .ttl = odd == 1 ? 9 : 64, .identification = (uint16_t)i,
					  .fragment = odd == 2 ? FRAGMENT_MF : 0, .has_ip_options = odd == 3 };
			if (odd == 4)
				f.payload = EMPTY;
			if (odd == 5 && flow % 2 == 0)
				f.flags = TCP_ACK | TCP_PSH;
			sequence[flow] += f.payload == EMPTY ? 0 : (uint32_t)f.payload;
			add(&st, f);
		}
		stream_close(&st);
	}
}

int main(void)
{
	struct suite s = { .name = "coalesce", .random = 32 };

	merges(&s);
	keeps_apart(&s);
	damage_takes_only_itself(&s);
	short_packet_overtakes_nothing(&s);
	limits(&s);
	without_uso(&s);
	random_mix(&s);
	return suite_end(&s);
}
