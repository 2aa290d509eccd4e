/*
 * loop.c in both directions against the kernel: every packet ends in exactly one counter, the control words take
 * effect, and a TUN that is gone does not make a thread spin.
 */
#include "lab.h"
#include "test.h"
#include "vectors.h"
#include <signal.h>

/* Each vector of one direction ends in one counter, and the good packets between them all arrive. */
static void vectors_add_up(struct suite *s, bool tx)
{
	struct lab *l = lab_open(tx ? loop_tx : loop_rx);
	uint64_t sent = 0, good = 0;
	uint8_t got[2048];

	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		const struct vector *v = &vectors[i];
		struct recipe r = { .source = tx ? OURS : THEIRS, .destination = tx ? THEIRS : OURS, .protocol = 200 };
		uint8_t bytes[64];
		struct packet p = packet_make(bytes, &r);
		if (v->direction == VECTOR_VNET)
			continue;
		if (tx) {
			uint8_t *framed = calloc(1, VNET_HEADER_BYTES + v->length);
			memcpy(framed + VNET_HEADER_BYTES, v->bytes, v->length);
			CHECK_CASE(s, write(l->tun_outside, framed, VNET_HEADER_BYTES + v->length) > 0, v->name);
			free(framed);
			tun_put(l, &r);
		} else {
			peer_send(l, v->bytes, v->length);
			peer_send(l, p.bytes, p.length);
		}
		sent += 2;
		good++;
		/* Each is counted before the next is sent, so that no buffer of the kernel overflows. */
		CHECK_CASE(s, reaches(l, tx ? tx_ok : rx_ok, tx ? tx_error_other : rx_error_tun, sent), v->name);
	}
	for (uint64_t i = 0; i < good;) {
		ssize_t bytes = take(tx ? l->peer : l->tun_outside, got, sizeof got);
		if (!CHECK(s, bytes > 0))
			break;
		i += got[(tx ? 0 : VNET_HEADER_BYTES) + 9] == 200 ? 1 : 0;
	}
	lab_close(l);
}

/* If the TUN is gone, what cannot be written to it is counted, and the reading thread does not spin. */
static void broken_tun(struct suite *s, bool tx)
{
	struct lab *l = lab_open(tx ? loop_tx : loop_rx);
	const struct recipe r = { .source = THEIRS, .destination = OURS };
	uint8_t bytes[64];
	struct packet p = packet_make(bytes, &r);

	signal(SIGPIPE, SIG_IGN);
	shutdown(l->tun_outside, SHUT_RDWR);
	if (!tx) {
		peer_send(l, p.bytes, p.length);
		CHECK(s, reaches(l, rx_error_tun, rx_error_tun, 1));
	} else {
		CHECK(s, reaches(l, tx_tun_errors, tx_tun_errors, 1));
		poll(NULL, 0, 500);
		CHECK(s, count(l, tx_tun_errors) <= 2 + 2000 / BROKEN_MS);
	}
	lab_close(l);
}

static void control_words_take_effect(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);

	CHECK(s, becomes(l, tx_ok));
	atomic_store(&l->file->fence, 1);
	CHECK(s, becomes(l, tx_fenced));
	atomic_store(&l->file->fence, 0);
	atomic_store(&l->file->forward_until, 1);
	CHECK(s, becomes(l, tx_orphaned));
	atomic_store(&l->file->forward_until, UINT64_MAX);
	CHECK(s, becomes(l, tx_ok));
	lab_close(l);
}

/* Without an MTU nothing is read, because another process may still read the queue. With an MTU it begins. */
static void paused_reads_nothing(struct suite *s)
{
	struct lab *l = lab_open(loop_tx);
	struct pollfd outside = { .fd = l->tun_outside, .events = POLLIN };

	atomic_store(&l->file->mtu, 0);
	ring(l);
	/* Until a packet stays in the queue: the poll of before may still read the first ones. */
	uint64_t seen = UINT64_MAX;
	while (seen != count(l, tx_ok)) {
		seen = count(l, tx_ok);
		tun_put(l, &(struct recipe){ .source = OURS, .destination = THEIRS });
		poll(&outside, 1, 20);
	}
	CHECK(s, count(l, tx_ok) == seen);
	atomic_store(&l->file->mtu, MTU);
	ring(l);
	CHECK(s, reaches(l, tx_ok, tx_ok, seen + 1));
	lab_close(l);
}

int main(void)
{
	struct suite s = { .name = "loops", .random = 15 };

	vectors_add_up(&s, true);
	vectors_add_up(&s, false);
	lab_features = 0;
	vectors_add_up(&s, true);
	vectors_add_up(&s, false);
	lab_features = LAB_ALL_FEATURES;
	broken_tun(&s, true);
	broken_tun(&s, false);
	control_words_take_effect(&s);
	paused_reads_nothing(&s);
	return suite_end(&s);
}
