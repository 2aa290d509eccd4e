/* loop.c and tx.c against the kernel: delivery, ICMP and its limit, and errors that cost only their own packet. */
#include "lab.h"
#include "icmp-reply.h"
#include "test.h"

static void tx_delivers(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	const struct recipe r = { .source = OURS, .destination = THEIRS, .payload = "hello" };
	uint8_t expected[64], got[128];
	struct packet p = packet_make(expected, &r);

	ipv4_decrement_ttl(&p);
	tun_put(l, &r);
	CHECK(s, take(l->peer, got, sizeof got) == 48 && memcmp(got, expected, 48) == 0);
	CHECK(s, reaches(l, tx_ok, tx_ok, 1) && count(l, tx_bytes) == 48);
	lab_close(l);
}

static void tx_replies_with_icmp(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	const struct recipe r = { .source = OURS, .destination = ADDRESS(10, 5, 200, 9) };
	uint8_t got[256];

	for (int i = 0; i < 30; i++)
		tun_put(l, &r);
	CHECK(s, reaches(l, tx_noroute, tx_noroute, 30));
	CHECK(s, count(l, icmp_sent) + count(l, icmp_limited) == 30 && count(l, icmp_sent) >= LIMITER_PER_SOURCE);
	for (uint64_t i = count(l, icmp_sent); i > 0; i--) {
		ssize_t bytes = take(l->tun_outside, got, sizeof got);
		struct packet p = { .bytes = got + VNET_HEADER_BYTES, .length = (size_t)bytes - VNET_HEADER_BYTES };
		CHECK(s, bytes == (ssize_t)VNET_HEADER_BYTES + 28 + 28 && packet_u8(&p, 20) == 3);
		/* fault N3: from the gateway of the containers. */
		CHECK(s, packet_u32(&p, IPV4_AT_SOURCE) == ADDRESS(10, 5, 1, 1));
	}
	lab_close(l);
}

/* A subnet of two addresses or one has no address that is not a host's (RFC 3021). */
static void reply_source(struct suite *s)
{
	struct self self = fixture_self;

	for (self.subnet_length = 8; self.subnet_length <= 32; self.subnet_length++)
		CHECK(s, icmp_reply_source(&self) == ADDRESS(10, 5, 1, self.subnet_length < 31 ? 1 : 0));
}

static void tx_error_is_of_one_peer(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	uint8_t got[128];

	for (int i = 0; i < 60; i++) {
		struct recipe r = { .source = OURS, .destination = i % 3 == 0 ? ADDRESS(10, 5, 3, 9) : THEIRS };
		tun_put(l, &r);
	}
	CHECK(s, reaches(l, tx_ok, tx_error_other, 60));
	CHECK(s, count(l, tx_ok) == 40 && count(l, tx_error_perm) == 20);
	for (int i = 0; i < 40; i++)
		CHECK(s, take(l->peer, got, sizeof got) == 48);
	lab_close(l);
}

static void tx_refuses_offloads(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	uint8_t bytes[VNET_HEADER_BYTES + 64] = { 0 };
	const struct recipe r = { .source = OURS, .destination = THEIRS };

	packet_make(bytes + VNET_HEADER_BYTES, &r);
	bytes[1] = 1; /* TCPv4 segmentation */
	CHECK(s, write(l->tun_outside, bytes, VNET_HEADER_BYTES + 48) > 0);
	CHECK(s, write(l->tun_outside, bytes, VNET_HEADER_BYTES - 1) > 0);
	CHECK(s, write(l->tun_outside, bytes, VNET_HEADER_BYTES) > 0);
	CHECK(s, reaches(l, tx_ok, tx_error_other, 3));
	CHECK(s, count(l, tx_bad_len) == 2 && count(l, tx_short) == 1);
	lab_close(l);
}

/* The kernel refuses what is longer than any datagram like what is too long for the path; both get the same reply. */
static void tx_too_long_for_the_path(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	const struct recipe r = { .source = OURS, .destination = THEIRS, .total = 65520, .fragment = FRAGMENT_DF };
	uint8_t *bytes = calloc(1, VNET_HEADER_BYTES + 65535);
	struct packet p = packet_make(bytes + VNET_HEADER_BYTES, &r);

	atomic_store(&l->file->mtu, 65535);
	CHECK(s, becomes(l, tx_ok)); /* a poll with the new MTU has begun */
	CHECK(s, write(l->tun_outside, bytes, VNET_HEADER_BYTES + p.length) > 0);
	CHECK(s, reaches(l, tx_error_msgsize, tx_error_msgsize, 1));
	CHECK(s, take(l->tun_outside, bytes, 65535) == VNET_HEADER_BYTES + 28 + 28);
	struct packet reply = { .bytes = bytes + VNET_HEADER_BYTES, .length = 56 };
	CHECK(s, packet_u16(&reply, 20) == 0x0304 && packet_u32(&reply, 24) == 32000 - 28);
	free(bytes);
	lab_close(l);
}

/* Publishes the first peer as one of the kernel engine; what was learnt of it stays. */
static void become_kernel_peer(struct suite *s, struct lab *l)
{
	const uint32_t generation = atomic_load(&l->file->generation) + 1;
	struct route_slot *slot = &l->file->slot[generation % 2];

	*slot = l->file->slot[(generation - 1) % 2];
	slot->head.generation = generation;
	slot->peers[0].engine = PEER_ENGINE_KERNEL;
	slot->head.checksum = fixture_checksum(slot);
	atomic_store(&l->file->generation, generation);
	ring(l);
	for (int ms = 0; ms < WAIT_MS && atomic_load(&l->block->generation) != generation; ms++)
		poll(NULL, 0, 1);
	CHECK(s, atomic_load(&l->block->generation) == generation);
}

/*
 * The learnt path carries 1400 bytes with ours and 1392 with the kernel engine's header. What fits ours alone is answered
 * and not sent, what has no DF passes, and a peer without the kernel engine gets all that fits.
 */
static void tx_too_long_for_the_kernel_path(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	uint8_t got[2048];
	const struct recipe narrow = { .source = OURS, .destination = THEIRS, .total = 1393, .fragment = FRAGMENT_DF };
	const struct recipe fits = { .source = OURS, .destination = THEIRS, .total = 1392, .fragment = FRAGMENT_DF };
	const struct recipe without = { .source = OURS, .destination = THEIRS, .total = 1393 };

	CHECK(s, becomes(l, tx_ok));
	while (read(l->peer, got, sizeof got) > 0)
		;
	const uint64_t before = count(l, tx_ok);
	atomic_store(&l->counters->peer[0].path_mtu, 1400 + 28);
	atomic_store(&l->counters->peer[0].path_mtu_until_s, UINT32_MAX);
	tun_put(l, &narrow);
	CHECK(s, take(l->peer, got, sizeof got) == 1393);
	become_kernel_peer(s, l);
	tun_put(l, &narrow);
	CHECK(s, take(l->tun_outside, got, sizeof got) == VNET_HEADER_BYTES + 28 + 28);
	struct packet reply = { .bytes = got + VNET_HEADER_BYTES, .length = 56 };
	CHECK(s, packet_u16(&reply, 20) == 0x0304 && packet_u32(&reply, 24) == 1392);
	CHECK(s, packet_u32(&reply, IPV4_AT_SOURCE) == ADDRESS(10, 5, 1, 1));
	tun_put(l, &fits);
	CHECK(s, take(l->peer, got, sizeof got) == 1392);
	tun_put(l, &without);
	CHECK(s, take(l->peer, got, sizeof got) == 1393);
	CHECK(s, reaches(l, tx_ok, tx_oversize, before + 4));
	CHECK(s, count(l, tx_oversize) == 1 && count(l, tx_ok) == before + 3 && count(l, icmp_sent) == 1);
	lab_close(l);
}

/* Of what the kernel refuses, too: the path is 32000 bytes, and the kernel engine adds 36 to a packet. */
static void tx_refused_for_the_kernel_path(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	const struct recipe r = { .source = OURS, .destination = THEIRS, .total = 65520, .fragment = FRAGMENT_DF };
	uint8_t *bytes = calloc(1, VNET_HEADER_BYTES + 65535);
	struct packet p = packet_make(bytes + VNET_HEADER_BYTES, &r);

	atomic_store(&l->file->underlay_mtu, 65535 + 100);
	atomic_store(&l->file->mtu, 65535);
	CHECK(s, becomes(l, tx_ok));
	become_kernel_peer(s, l);
	CHECK(s, write(l->tun_outside, bytes, VNET_HEADER_BYTES + p.length) > 0);
	CHECK(s, reaches(l, tx_error_msgsize, tx_error_msgsize, 1));
	CHECK(s, take(l->tun_outside, bytes, 65535) == VNET_HEADER_BYTES + 28 + 28);
	struct packet reply = { .bytes = bytes + VNET_HEADER_BYTES, .length = 56 };
	CHECK(s, packet_u16(&reply, 20) == 0x0304 && packet_u32(&reply, 24) == 32000 - 36);
	free(bytes);
	lab_close(l);
}

/*
 * The path becomes wider between the refusal and the question for its MTU: the question carries the packet. Of a socket
 * pair the kernel ignores the address.
 */
static void question_sends_the_packet(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	const struct recipe r = { .source = OURS, .destination = THEIRS, .total = 65520, .fragment = FRAGMENT_DF };
	uint8_t *bytes = calloc(1, VNET_HEADER_BYTES + 65535), *got = malloc(65535);
	struct packet p = packet_make(bytes + VNET_HEADER_BYTES, &r);
	int wider[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, wider) < 0)
		abort();
	l->w->path_mtu = wider[0];
	atomic_store(&l->file->mtu, 65535);
	tun_put(l, &(struct recipe){ .source = OURS, .destination = THEIRS });
	CHECK(s, reaches(l, tx_ok, tx_ok, 1)); /* the next poll has the new MTU */
	CHECK(s, write(l->tun_outside, bytes, VNET_HEADER_BYTES + p.length) > 0);
	CHECK(s, take(wider[1], got, 65535) == 65520);
	CHECK(s, reaches(l, tx_ok, tx_error_other, 2));
	CHECK(s, count(l, tx_error_msgsize) == 0 && count(l, tx_ok) == 2);
	CHECK(s, reaches(l, tx_bytes, tx_bytes, 48 + 65520) && count(l, icmp_sent) == 0);
	free(bytes);
	free(got);
	lab_close(l);
	close(wider[0]);
	close(wider[1]);
}

int main(void)
{
	struct suite s = { .name = "loop-tx", .random = 11 };

	tx_delivers(&s);
	tx_replies_with_icmp(&s);
	reply_source(&s);
	tx_error_is_of_one_peer(&s);
	tx_refuses_offloads(&s);
	tx_too_long_for_the_path(&s);
	tx_too_long_for_the_kernel_path(&s);
	tx_refused_for_the_kernel_path(&s);
	question_sends_the_packet(&s);
	return suite_end(&s);
}
