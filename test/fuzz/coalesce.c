/*
 * Fuzz target: a stream of packets of a few flows, most of them in sequence, some changed anywhere. What the coalescer
 * writes, taken apart by the reference, is what went in, in the order of each flow.
 *
 * Six bytes a packet: flow, kind, place and value of a change, payload, what is done about checksums.
 */
#include "collector.h"

#define RECORD_BYTES 6u
#define PACKETS_MAX 300u
#define FLOWS 8u

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static const size_t payloads[] = { 1000, 1000, 1000, 536, 535, 1, 0, 1432 };

static void put_checksums(struct packet *p)
{
	struct ipv4 h;

	packet_put_u16(p, 10, 0);
	packet_put_u16(p, 10, checksum_make(p, 0, (size_t)(packet_u8(p, 0) & 15) * 4));
	if (ipv4_parse(p, &h) != IPV4_SOUND)
		return;
	size_t field = h.header_bytes + (h.protocol == PROTOCOL_UDP ? 6 : 16);
	packet_put_u16(p, field, 0);
	packet_put_u16(p, field, (uint16_t)~transport_sum(p, &h));
}

static void change(struct packet *p, const uint8_t *record)
{
	/* Kind 0 to 199: none. */
	if (record[1] >= 200)
		packet_put_u8(p, (size_t)record[2] % 64, record[3]);
	if (record[1] >= 250)
		packet_put_u8(p, (size_t)record[2] + record[3], record[2]);
}

static struct packet make(uint8_t *bytes, const uint8_t *record, uint32_t *sequence)
{
	const uint32_t flow = record[0] % FLOWS;
	const bool is_udp = flow % 2 == 1;
	const size_t payload = payloads[record[4] % 8], transport = is_udp ? 8 : flow % 4 == 2 ? 32 : 20;
	struct recipe r = { .source = ADDRESS(10, 5, 2, flow / 4), .destination = ADDRESS(10, 5, 1, 9), .fragment = FRAGMENT_DF,
			    .protocol = is_udp ? PROTOCOL_UDP : PROTOCOL_TCP, .total = 20 + transport + payload };
	struct packet p = packet_make(bytes, &r);

	memset(bytes + 20, record[4], p.length - 20);
	packet_put_u16(&p, 20, (uint16_t)flow);
	packet_put_u16(&p, 22, 80);
	if (is_udp) {
		packet_put_u16(&p, 24, (uint16_t)(8 + payload));
	} else {
		packet_put_u32(&p, 24, sequence[flow]);
		packet_put_u32(&p, 28, 1);
		packet_put_u8(&p, 32, (uint8_t)(transport / 4 << 4));
		packet_put_u8(&p, 33, record[1] >= 190 && record[1] < 200 ? TCP_ACK | TCP_PSH : TCP_ACK);
		packet_put_u16(&p, 34, 100);
		packet_put_u16(&p, 38, 0);
		packet_put_u32(&p, 40, 0);
	}
	sequence[flow] += (uint32_t)payload;
	return p;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
	static struct collector c;
	static uint8_t *memory[PACKETS_MAX];
	uint32_t sequence[FLOWS] = { 0 };
	const struct beside nothing = { 0 };
	size_t packets = 0;

	collector_open(&c, length > 0 && (input[0] & 0x80) == 0);
	for (; length >= RECORD_BYTES && packets < PACKETS_MAX; input += RECORD_BYTES, length -= RECORD_BYTES) {
		/* Of the exact length, so that a read of one byte more is seen. */
		uint8_t *bytes = malloc(20 + 32 + 1432);
		struct packet p = make(bytes, input, sequence);
		struct ipv4 h;
		if (input[5] < 128)
			put_checksums(&p);
		change(&p, input);
		if (input[5] < 200 && input[5] >= 32)
			put_checksums(&p);
		if (ipv4_parse(&p, &h) != IPV4_SOUND) {
			free(bytes);
			continue;
		}
		p.length = h.total_bytes;
		uint8_t *exact = malloc(p.length);
		memcpy(exact, bytes, p.length);
		free(bytes);
		p.bytes = exact;
		memory[packets++] = exact;
		collector_expect(&c, &p);
		coalesce_add(&c.coalescer, &p, &h, 1, &nothing);
	}
	coalesce_flush(&c.coalescer);
	if (!collector_agrees(&c))
		abort();
	collector_close(&c);
	while (packets > 0)
		free(memory[--packets]);
	return 0;
}
