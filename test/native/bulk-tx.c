/* tx.c with packets in bulk: TSO packets and GSO runs arrive as single packets and are counted as such. */
#include "bulk.h"
#include "reference.h"
#include "test.h"
#include "vectors.h"

static void arrives_cut(struct suite *s, struct lab *l, uint8_t protocol)
{
	struct tun_packet x = tun_packet_make(s, protocol, THEIRS);
	uint8_t expected[2048], got[2048];
	uint64_t before = count(l, tx_ok);

	tun_packet_put(l, &x);
	ipv4_decrement_ttl(&x.p);
	for (size_t i = 0; i < 10; i++) {
		size_t bytes = reference_segment(expected, &x.vnet, &x.p, i);
		CHECK(s, take(l->peer, got, sizeof got) == (ssize_t)bytes && memcmp(got, expected, bytes) == 0);
	}
	CHECK(s, reaches(l, tx_ok, tx_error_other, before + 10) && count(l, tx_ok) == before + 10);
	free(x.framed);
}

static void cuts(struct suite *s, uint32_t features)
{
	lab_features = features;
	struct lab *l = lab_open(loop_tx);

	arrives_cut(s, l, PROTOCOL_TCP);
	arrives_cut(s, l, PROTOCOL_UDP);
	CHECK(s, count(l, tx_gso_off) == 0);
	lab_close(l);
	lab_features = LAB_ALL_FEATURES;
}

/* A dropped TSO packet counts as its segments; it gets one reply. */
static void dropped_whole(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	struct tun_packet lost = tun_packet_make(s, PROTOCOL_TCP, ADDRESS(10, 5, 200, 9));
	struct tun_packet x = tun_packet_make(s, PROTOCOL_TCP, THEIRS);
	uint8_t got[256];

	tun_packet_put(l, &lost);
	CHECK(s, reaches(l, tx_noroute, tx_noroute, 10));
	CHECK(s, take(l->tun_outside, got, sizeof got) == VNET_HEADER_BYTES + 56);
	atomic_store(&l->file->mtu, 1439);
	ring(l);
	CHECK(s, becomes(l, tx_ok));
	tun_packet_put(l, &x);
	CHECK(s, reaches(l, tx_oversize, tx_oversize, 10));
	CHECK(s, take(l->tun_outside, got, sizeof got) == VNET_HEADER_BYTES + 56);
	struct packet reply = { .bytes = got + VNET_HEADER_BYTES, .length = 56 };
	CHECK(s, packet_u16(&reply, 20) == 0x0304 && packet_u32(&reply, 24) == 1439);
	x.vnet.gso_type = GSO_UDP_L4; /* before TCP */
	x.vnet.checksum_offset = 6;
	vnet_header_put(&x.vnet, x.framed);
	atomic_store(&l->file->mtu, MTU);
	CHECK(s, becomes(l, tx_ok));
	tun_packet_put(l, &x);
	CHECK(s, reaches(l, tx_bad_len, tx_bad_len, 10));
	free(lost.framed);
	free(x.framed);
	lab_close(l);
}

/* A socket without checksums refuses UDP_SEGMENT. Everything arrives nevertheless, and no second try is made. */
static void goes_on_without_offload(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	int on = 1;

	CHECK(s, setsockopt(l->w->udp, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on) == 0);
	arrives_cut(s, l, PROTOCOL_TCP);
	CHECK(s, count(l, tx_gso_off) == 1);
	arrives_cut(s, l, PROTOCOL_UDP);
	CHECK(s, count(l, tx_gso_off) == 1);
	lab_close(l);
}

/* fault N12: a peer is tried again with UDP_SEGMENT after a minute. */
static void denied_for_a_minute(struct suite *s)
{
	const uint64_t second = UINT64_C(1000000000), now = 7 * second;
	struct gso_denied d = { 0 };

	CHECK(s, !gso_denied_has(&d, PEER_IP, now));
	gso_denied_add(&d, PEER_IP, now);
	CHECK(s, gso_denied_has(&d, PEER_IP, now) && gso_denied_has(&d, PEER_IP, now + 59 * second));
	CHECK(s, !gso_denied_has(&d, SELF_IP, now) && !gso_denied_has(&d, PEER_IP, now + 60 * second));
	gso_denied_add(&d, PEER_IP, now + 60 * second);
	CHECK(s, gso_denied_has(&d, PEER_IP, now + 61 * second));
}

/* The lengths rise and fall, for two peers. One takes nothing; the packets of the other arrive, in order. */
static void gso_runs(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	uint8_t got[2048];
	uint64_t good = 0;

	for (uint32_t i = 0; i < 120; i++) {
		struct recipe r = { .source = OURS, .destination = i % 7 == 3 ? ADDRESS(10, 5, 3, 9) : THEIRS,
				    .total = i % 50 < 30 ? 100 : 60 + i % 50, .payload = { (uint8_t)(i >> 8), (uint8_t)i } };
		good += i % 7 == 3 ? 0 : 1;
		tun_put(l, &r);
	}
	CHECK(s, reaches(l, tx_ok, tx_error_other, 120) && count(l, tx_ok) == good);
	CHECK(s, count(l, tx_error_perm) == 120 - good && count(l, tx_gso_off) == 0);
	for (uint32_t i = 0; i < 120; i++) {
		if (i % 7 == 3)
			continue;
		CHECK(s, take(l->peer, got, sizeof got) == (i % 50 < 30 ? 100 : 60 + (int)(i % 50)));
		CHECK(s, got[20] == (uint8_t)(i >> 8) && got[21] == (uint8_t)i);
	}
	lab_close(l);
}

/* More segments than one message may have, and than a batch has room for. */
static void many_small(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	struct tun_packet x = tun_packet_make(s, PROTOCOL_TCP, THEIRS);
	uint8_t got[2048], expected[2048];
	const size_t segments = (TSO_PAYLOAD + 99) / 100;

	x.vnet.gso_size = 100;
	vnet_header_put(&x.vnet, x.framed);
	tun_packet_put(l, &x);
	ipv4_decrement_ttl(&x.p);
	for (size_t i = 0; i < segments; i++) {
		size_t bytes = reference_segment(expected, &x.vnet, &x.p, i);
		if (!CHECK(s, take(l->peer, got, sizeof got) == (ssize_t)bytes && memcmp(got, expected, bytes) == 0))
			break;
	}
	CHECK(s, reaches(l, tx_ok, tx_error_other, segments));
	free(x.framed);
	lab_close(l);
}

/* Every vector with a checksum to finish at good and at impossible places ends in one counter. */
static void vectors_add_up(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	uint64_t sent = 0;

	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		for (uint16_t start = 0; start < 70 && v->direction != VECTOR_VNET; start += 10) {
			const struct vnet_header vnet = { .flags = VNET_NEEDS_CHECKSUM, .checksum_start = start, .checksum_offset = 6 };
			uint8_t *framed = calloc(1, VNET_HEADER_BYTES + v->length);
			memcpy(framed + VNET_HEADER_BYTES, v->bytes, v->length);
			vnet_header_put(&vnet, framed);
			CHECK_CASE(s, write(l->tun_outside, framed, VNET_HEADER_BYTES + v->length) > 0, v->name);
			free(framed);
			CHECK_CASE(s, reaches(l, tx_ok, tx_error_other, ++sent), v->name);
		}
	}
	lab_close(l);
}

/* What comes back of one packet in fragments, until the last one: its length, with the payload in `whole`. */
static size_t take_fragments(struct suite *s, struct lab *l, size_t longest, uint8_t *whole, size_t *fragments)
{
	uint8_t got[65535];
	struct ipv4 h = { .more_fragments = true };
	size_t end = 0;

	for (*fragments = 0; h.more_fragments; (*fragments)++) {
		ssize_t bytes = take(l->peer, got, sizeof got);
		struct packet p = { .bytes = got, .length = bytes > 0 ? (size_t)bytes : 0 };
		if (!CHECK(s, ipv4_parse(&p, &h) == IPV4_SOUND && p.length <= longest && h.fragment_offset == end))
			break;
		memcpy(whole + end, got + h.header_bytes, p.length - h.header_bytes);
		end += p.length - h.header_bytes;
	}
	return end;
}

static void learn(struct lab *l, uint32_t bytes)
{
	atomic_store(&l->counters->peer[0].path_mtu, bytes);
	atomic_store(&l->counters->peer[0].path_mtu_until_s, UINT32_MAX);
}

static void allow_cutting(struct tun_packet *x)
{
	ipv4_put_u16(&x->p, IPV4_AT_FRAGMENT, 0);
}

/* fault N1: TCP without DF is cut into shorter segments, each datagram of UDP into fragments; with DF all is as before. */
static void cut_to_the_path(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	struct tun_packet tcp = tun_packet_make(s, PROTOCOL_TCP, THEIRS), udp = tun_packet_make(s, PROTOCOL_UDP, THEIRS);
	const struct recipe single = { .source = OURS, .destination = THEIRS, .total = 1400, .payload = "single" };
	uint8_t got[2048], whole[65535], expected[2048];
	size_t fragments;

	CHECK(s, becomes(l, tx_ok)); /* the thread has fitted the blocks */
	while (read(l->peer, got, sizeof got) > 0)
		;
	learn(l, 1300);
	uint64_t before = count(l, tx_ok);
	allow_cutting(&tcp);
	tun_packet_put(l, &tcp);
	tcp.vnet.gso_size = 1272 - 40;
	ipv4_decrement_ttl(&tcp.p);
	for (size_t i = 0; i * 1232 < TSO_PAYLOAD; i++) {
		size_t bytes = reference_segment(expected, &tcp.vnet, &tcp.p, i);
		CHECK(s, take(l->peer, got, sizeof got) == (ssize_t)bytes && memcmp(got, expected, bytes) == 0);
	}
	CHECK(s, reaches(l, tx_ok, tx_error_other, before + 11));
	allow_cutting(&udp);
	tun_packet_put(l, &udp);
	ipv4_decrement_ttl(&udp.p);
	for (size_t i = 0; i < 10; i++) {
		size_t bytes = reference_segment(expected, &udp.vnet, &udp.p, i);
		CHECK(s, take_fragments(s, l, 1272, whole, &fragments) == bytes - 20);
		CHECK(s, fragments == (bytes > 1272 ? 2 : 1) && memcmp(whole, expected + 20, bytes - 20) == 0);
	}
	/* The tenth datagram is short. */
	CHECK(s, reaches(l, tx_ok, tx_error_other, before + 11 + 19));
	tun_put(l, &single);
	CHECK(s, take_fragments(s, l, 1272, whole, &fragments) == 1380 && fragments == 2 && whole[5] == 'e');
	CHECK(s, reaches(l, tx_ok, tx_ok, before + 11 + 19 + 2));
	arrives_cut(s, l, PROTOCOL_TCP);
	/* A fragment that no packet can have had is not cut, because its parts could overlap others. */
	tun_put(l, &(struct recipe){ .source = OURS, .destination = THEIRS, .total = 1400, .fragment = 0x1fff });
	CHECK(s, reaches(l, tx_bad_len, tx_bad_len, 1));
	free(tcp.framed);
	free(udp.framed);
	lab_close(l);
}

/* fault N1: the kernel refuses the packet, and a guess of the path MTU too. It arrives in fragments nevertheless. */
static void refused_and_cut(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	const struct recipe r = { .source = OURS, .destination = THEIRS, .total = 65520 };
	uint8_t *bytes = calloc(1, VNET_HEADER_BYTES + 65535), *whole = malloc(65535);
	struct packet p = packet_make(bytes + VNET_HEADER_BYTES, &r);
	size_t fragments;

	for (size_t at = 20; at < p.length; at++)
		packet_put_u8(&p, at, (uint8_t)suite_random(s));
	atomic_store(&l->file->mtu, 65535);
	CHECK(s, becomes(l, tx_ok));
	while (read(l->peer, whole, 65535) > 0)
		;
	CHECK(s, write(l->tun_outside, bytes, VNET_HEADER_BYTES + p.length) > 0);
	CHECK(s, take_fragments(s, l, 32000 - 28, whole, &fragments) == 65500 && fragments == 3);
	CHECK(s, memcmp(whole, p.bytes + 20, 65500) == 0 && count(l, tx_error_msgsize) == 0);
	CHECK(s, atomic_load(&l->counters->peer[0].path_mtu) == 32000);
	free(bytes);
	free(whole);
	lab_close(l);
}

int main(void)
{
	struct suite s = { .name = "bulk-tx", .random = 33 };

	cuts(&s, LAB_ALL_FEATURES);
	cuts(&s, 0);
	dropped_whole(&s);
	goes_on_without_offload(&s);
	denied_for_a_minute(&s);
	gso_runs(&s);
	many_small(&s);
	vectors_add_up(&s);
	cut_to_the_path(&s);
	refused_and_cut(&s);
	return suite_end(&s);
}
