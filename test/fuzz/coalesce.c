/*
 * Fuzz target: a stream of packets of more flows than may wait at once. Most packets are in sequence, and some are
 * changed anywhere. What the coalescer writes, cut by the reference, is what went in, in the order of each flow, and
 * its counts add up.
 *
 * A packet is six bytes: flow, kind, place and value of a change, payload, which checksums are right.
 */
#include "collector.h"
#include "pseudo-header.h"
#include "target.h"
#include "tcp-udp.h"

#define RECORD_BYTES 6u
#define PACKETS_MAX 300u
#define FLOWS (FLOWS_MAX + 8u)

/* Sums over all packets, in and out. */
struct totals {
	size_t packets, bytes, trimmed, options, unexpected_ports;
};

struct stream {
	struct collector collector;
	struct totals in, out;
	uint32_t sequence[FLOWS];
	uint16_t identification[FLOWS];
	size_t count;
	uint8_t *memory[PACKETS_MAX];
};

static const size_t payloads[] = { 1000, 1000, 1000, 536, 535, 1, 0, 1432, 22, 22, 22, 1, 1, 64, 100, 1200 };

static void put_checksums(struct packet *p)
{
	struct ipv4 h;

	packet_put_u16(p, 10, 0);
	packet_put_u16(p, 10, checksum_make(p, 0, (size_t)(packet_u8(p, 0) & 15) * 4));
	if (ipv4_parse(p, &h) != IPV4_SOUND)
		return;
	size_t field = h.header_bytes + (h.protocol == PROTOCOL_UDP ? 6 : 16);
	packet_put_u16(p, field, 0);
	packet_put_u16(p, field, (uint16_t)~pseudo_header_packet_sum(p, &h));
}

static void change(struct packet *p, const uint8_t *record)
{
	/* Kinds 0 to 199 change nothing. */
	if (record[1] >= 200)
		packet_put_u8(p, (size_t)record[2] % 64, record[3]);
	if (record[1] >= 250)
		packet_put_u8(p, (size_t)record[2] + record[3], record[2]);
}

/* Odd flows are UDP, every fourth flow has TCP options, and the packets of the last flows are numbered, without DF. */
static struct packet make(struct stream *st, uint8_t *bytes, const uint8_t *record)
{
	const uint32_t flow = record[0] % FLOWS;
	const bool is_udp = flow % 2 == 1, may_be_fragmented = flow >= FLOWS - 6;
	const size_t payload = payloads[record[4] % 16], transport = is_udp ? 8 : flow % 4 == 2 ? 32 : 20;
	struct recipe r = { .source = ADDRESS(10, 5, 2, flow / 4), .destination = ADDRESS(10, 5, 1, 9),
			    .fragment = may_be_fragmented ? 0 : FRAGMENT_DF, .protocol = is_udp ? PROTOCOL_UDP : PROTOCOL_TCP,
			    .total = 20 + transport + payload };
	struct packet p = packet_make(bytes, &r);

	memset(bytes + 20, record[4], p.length - 20);
	packet_put_u16(&p, 4, st->identification[flow]++);
	packet_put_u16(&p, 20, (uint16_t)flow);
	packet_put_u16(&p, 22, 80);
	if (is_udp) {
		packet_put_u16(&p, 24, (uint16_t)(8 + payload));
	} else {
		packet_put_u32(&p, 24, st->sequence[flow]);
		packet_put_u32(&p, 28, 1);
		packet_put_u8(&p, 32, (uint8_t)(transport / 4 << 4));
		packet_put_u8(&p, 33, record[1] >= 190 && record[1] < 200 ? TCP_ACK | TCP_PSH : TCP_ACK);
		packet_put_u16(&p, 34, 100);
		packet_put_u16(&p, 38, 0);
		packet_put_u32(&p, 40, 0);
	}
	st->sequence[flow] += (uint32_t)payload;
	return p;
}

static void add(struct stream *st, const uint8_t *record)
{
	uint8_t *bytes = malloc(20 + 32 + 1432);
	struct packet p = make(st, bytes, record);
	const struct notes beside = { .trimmed = record[1] % 2 == 1, .options = record[1] % 3 == 1,
				       .unexpected_port = record[1] % 5 == 1 };
	struct ipv4 h;

	if (record[5] < 128)
		put_checksums(&p);
	change(&p, record);
	if (record[5] < 200 && record[5] >= 32)
		put_checksums(&p);
	if (ipv4_parse(&p, &h) == IPV4_SOUND) {
		/* The copy has the exact length, so that the sanitizer sees a read past it. */
		uint8_t *exact = malloc(h.total_bytes);
		memcpy(exact, bytes, h.total_bytes);
		p = (struct packet){ .bytes = exact, .length = h.total_bytes };
		st->memory[st->count++] = exact;
		st->in.packets++;
		st->in.bytes += p.length;
		st->in.trimmed += beside.trimmed;
		st->in.options += beside.options;
		st->in.unexpected_ports += beside.unexpected_port;
		collector_expect(&st->collector, &p);
		st->collector.coalescer.context = st;
		coalesce_add(&st->collector.coalescer, &p, &h, 1, &beside);
	}
	free(bytes);
}

static void write_packet(void *context, struct gro_packet *g)
{
	struct stream *st = context;

	require(g->segments >= 1 && g->segments <= 64 && g->iovs == g->segments + 1);
	st->out.packets += g->segments;
	st->out.bytes += g->received_bytes;
	st->out.trimmed += g->trimmed;
	st->out.options += g->options;
	st->out.unexpected_ports += g->unexpected_ports;
	collector_write(&st->collector, g);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	static struct stream st;

	collector_open(&st.collector, length > 0 && (input[0] & 0x80) == 0);
	st.collector.coalescer.write = write_packet;
	memset(&st.in, 0, sizeof st.in);
	memset(&st.out, 0, sizeof st.out);
	memset(st.sequence, 0, sizeof st.sequence);
	/* The identification starts at its maximum, so it wraps around at once. */
	memset(st.identification, 0xff, sizeof st.identification);
	for (st.count = 0; length >= RECORD_BYTES && st.count < PACKETS_MAX; length -= RECORD_BYTES, input += RECORD_BYTES)
		add(&st, input);
	coalesce_flush(&st.collector.coalescer);
	require(collector_agrees(&st.collector) && memcmp(&st.in, &st.out, sizeof st.in) == 0);
	collector_close(&st.collector);
	while (st.count > 0)
		free(st.memory[--st.count]);
	return 0;
}
