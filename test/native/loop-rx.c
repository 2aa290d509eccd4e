/* loop.c and rx.c against the kernel: delivery byte for byte, and an MTU that changes meanwhile. */
#include "lab.h"
#include "test.h"

static void rx_delivers(struct suite *s)
{
	struct lab *l = lab_open(loop_rx);
	const struct recipe r = { .source = THEIRS, .destination = OURS, .payload = "hello", .received = 60 };
	uint8_t bytes[64], got[256], zero[VNET_HEADER_BYTES] = { 0 };
	struct packet p = packet_make(bytes, &r);

	peer_send(l, p.bytes, p.length);
	CHECK(s, take(l->tun_outside, got, sizeof got) == VNET_HEADER_BYTES + 48);
	CHECK(s, memcmp(got, zero, sizeof zero) == 0 && memcmp(got + VNET_HEADER_BYTES, bytes, 48) == 0);
	CHECK(s, reaches(l, rx_ok, rx_error_tun, 1) && count(l, rx_bytes) == 48 && count(l, rx_trimmed) == 1);
	lab_close(l);
}

/* A larger MTU holds from the next poll on; before, such a datagram was too long. */
static void rx_follows_the_mtu(struct suite *s)
{
	struct lab *l = lab_open(loop_rx);
	const struct recipe r = { .source = THEIRS, .destination = OURS, .total = 8000 };
	uint8_t *bytes = malloc(65535);
	struct packet p = packet_make(bytes, &r);

	peer_send(l, p.bytes, p.length);
	CHECK(s, reaches(l, rx_oversize, rx_oversize, 1));
	atomic_store(&l->file->mtu, 8000);
	ring(l);
	while (count(l, rx_ok) == 0 && count(l, rx_oversize) < WAIT_MS) {
		peer_send(l, p.bytes, p.length); /* the poll of before may still receive the first one */
		poll(NULL, 0, 1);
	}
	CHECK(s, take(l->tun_outside, bytes, 65535) == VNET_HEADER_BYTES + 8000);
	free(bytes);
	lab_close(l);
}

int main(void)
{
	struct suite s = { .name = "loop-rx", .random = 14 };

	rx_delivers(&s);
	rx_follows_the_mtu(&s);
	return suite_end(&s);
}
