/* loop-rx.c with packets in bulk: what came in one message is judged packet by packet, merged per flow, and written. */
#include "collector.h"
#include "lab.h"
#include "test.h"
#include "vectors.h"

/* Several packets of one length in one message, as a peer with UDP_SEGMENT sends them. */
static void send_in_bulk(struct lab *l, const uint8_t *bytes, size_t length, uint16_t each)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(l->self_port), .sin_addr.s_addr = htonl(SELF_IP) };
	union {
		char space[CMSG_SPACE(sizeof each)];
		struct cmsghdr aligned;
	} control = { .aligned = { .cmsg_len = CMSG_LEN(sizeof each), .cmsg_level = IPPROTO_UDP, .cmsg_type = UDP_SEGMENT } };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = length };
	struct msghdr m = { .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &iov, .msg_iovlen = 1,
			    .msg_control = &control, .msg_controllen = sizeof control };

	memcpy(CMSG_DATA(&control.aligned), &each, sizeof each);
	if (sendmsg(l->peer, &m, 0) < 0)
		abort();
}

/* `count` TCP packets of `length` in sequence; the one with number `damaged` has a wrong checksum. */
static void make_stream(uint8_t *bytes, size_t length, size_t count, size_t damaged)
{
	for (size_t i = 0; i < count; i++) {
		struct recipe r = { .source = THEIRS, .destination = OURS, .protocol = PROTOCOL_TCP, .total = length,
				    .fragment = FRAGMENT_DF };
		struct packet p = packet_make(bytes + i * length, &r);
		struct ipv4 h;
		for (size_t at = 40; at < length; at++)
			packet_put_u8(&p, at, (uint8_t)(at * (i + 3)));
		packet_put_u32(&p, 24, (uint32_t)(i * (length - 40)));
		packet_put_u16(&p, 32, 0x5010);
		ipv4_parse(&p, &h);
		packet_put_u16(&p, 36, (uint16_t)~transport_sum(&p, &h));
		if (i == damaged)
			packet_put_u8(&p, 45, (uint8_t)~packet_u8(&p, 45));
	}
}

/* Reads writes until `count` packets are out of them, and compares each with what was sent. */
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

	make_stream(bytes, 1440, 40, SIZE_MAX);
	send_in_bulk(l, bytes, (size_t)40 * 1440, 1440);
	CHECK(s, compare(s, l, bytes, 1440, 40) == 1);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 40) && count(l, rx_bytes) == (uint64_t)40 * 1440);
	make_stream(bytes, 1440, 40, 17);
	send_in_bulk(l, bytes, (size_t)40 * 1440, 1440);
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

	make_stream(bytes, 1440, 40, SIZE_MAX);
	send_in_bulk(l, bytes, (size_t)40 * 1440, 1440);
	compare(s, l, bytes, 1440, 40);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 40));
	free(bytes);
	lab_close(l);
	lab_features = LAB_ALL_FEATURES;
}

/* Each vector between two good packets of its length in one message: it takes only itself. */
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
			send_in_bulk(l, bytes, 3 * length, (uint16_t)length);
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
