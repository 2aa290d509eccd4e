/* rx.c with packets in bulk: it judges each packet of a message, merges those of one flow, and writes. */
#include "bulk.h"
#include "collector.h"
#include "test.h"
#include "vectors.h"

/* Reads what was written until it has `count` packets of it, and compares each with what was sent. */
static size_t compare(struct suite *s, struct lab *l, const uint8_t *sent, size_t length, size_t count)
{
	uint8_t *got = malloc(VNET_HEADER_BYTES + 65535), *segment = malloc(65535);
	size_t writes = 0;

	for (size_t i = 0; i < count; writes++) {
		struct vnet_header v;
		ssize_t bytes = take(l->tun_outside, got, VNET_HEADER_BYTES + 65535);
		if (!CHECK(s, bytes > VNET_HEADER_BYTES))
			break;
		struct packet p = { .bytes = got + VNET_HEADER_BYTES, .length = (size_t)bytes - VNET_HEADER_BYTES };
		vnet_header_get(&v, got);
		CHECK(s, vnet_header_check(&v, &p) == GSO_SOUND);
		size_t segments = v.gso_size == 0 ? 1 : (p.length - v.header_bytes + v.gso_size - 1) / v.gso_size;
		for (size_t number = 0; number < segments && i < count; number++, i++) {
			struct copy a = { length, (uint8_t *)sent + i * length };
			struct copy b = { p.length, p.bytes };
			if (v.gso_size != 0)
				b = (struct copy){ reference_segment(segment, &v, &p, number), segment };
			CHECK(s, collector_same(&a, &b));
		}
	}
	free(got);
	free(segment);
	return writes;
}

static void merges_and_writes(struct suite *s)
{
	struct lab *l = lab_open(loop_rx);
	uint8_t *bytes = malloc(40 * 1440);

	stream_make(bytes, PROTOCOL_TCP, 1440, 40, SIZE_MAX);
	bulk_send(l, bytes, (size_t)40 * 1440, 1440);
	CHECK(s, compare(s, l, bytes, 1440, 40) == 1);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 40) && count(l, rx_bytes) == (uint64_t)40 * 1440);
	stream_make(bytes, PROTOCOL_TCP, 1440, 40, 17);
	bulk_send(l, bytes, (size_t)40 * 1440, 1440);
	CHECK(s, compare(s, l, bytes, 1440, 40) == 3);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 80));
	free(bytes);
	lab_close(l);
}

static void without_offloads(struct suite *s)
{
	lab_features = 0;
	struct lab *l = lab_open(loop_rx);
	uint8_t *bytes = malloc(40 * 1440);

	stream_make(bytes, PROTOCOL_TCP, 1440, 40, SIZE_MAX);
	bulk_send(l, bytes, (size_t)40 * 1440, 1440);
	compare(s, l, bytes, 1440, 40);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 40));
	free(bytes);
	lab_close(l);
	lab_features = LAB_ALL_FEATURES;
}

/* Sends each vector between two good packets of its length in one message. A bad one costs only itself. */
static void vectors_take_only_themselves(struct suite *s)
{
	struct lab *l = lab_open(loop_rx);
	uint8_t got[2048];
	uint64_t sent = 0;

	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		const size_t length = v->length;
		const struct recipe r = { .source = THEIRS, .destination = OURS, .protocol = 200, .total = length };
		uint8_t *bytes = malloc(3 * length + 1);
		uint64_t good = count(l, rx_ok);
		if (v->direction == VECTOR_RX && length >= 20 && length <= MTU) {
			packet_make(bytes, &r);
			memcpy(bytes + length, v->bytes, length);
			packet_make(bytes + 2 * length, &r);
			bulk_send(l, bytes, 3 * length, (uint16_t)length);
			sent += 3;
			CHECK_CASE(s, reaches(l, rx_ok, rx_error_tun, sent), v->name);
			size_t passed = count(l, rx_ok) - good;
			CHECK_CASE(s, passed == 2 || passed == 3, v->name);
			for (size_t n = 0; n < passed; n++) {
				CHECK_CASE(s, take(l->tun_outside, got, sizeof got) > VNET_HEADER_BYTES, v->name);
				bool is_good = n == 0 || n == passed - 1;
				CHECK_CASE(s, !is_good || memcmp(got + VNET_HEADER_BYTES, bytes, length) == 0, v->name);
			}
		}
		free(bytes);
	}
	CHECK(s, sent > 60);
	lab_close(l);
}

int main(void)
{
	struct suite s = { .name = "bulk-rx", .random = 34 };

	merges_and_writes(&s);
	without_offloads(&s);
	vectors_take_only_themselves(&s);
	return suite_end(&s);
}
