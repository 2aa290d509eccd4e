/*
 * A worker in the real loop, without privilege: a socket pair is its TUN, UDP sockets on loopback are its underlay, and
 * plain memory is its shared memory. One thread runs the loop under test until the lab is closed.
 */
#ifndef TARTAN_LAB_H
#define TARTAN_LAB_H

#include "fixture.h"
#include "loop.h"
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define SELF_IP ADDRESS(127, 0, 0, 1)
#define PEER_IP ADDRESS(127, 0, 0, 2)
#define OURS ADDRESS(10, 5, 1, 9)
#define THEIRS ADDRESS(10, 5, 2, 9)
#define WAIT_MS 10000

/* The features of the labs that are opened from now on. */
#define LAB_ALL_FEATURES ((1u << FEATURE_COUNT) - 1)
static uint32_t lab_features = LAB_ALL_FEATURES;
/* The TUN of these labs, the test's end and the worker's; -1: each lab makes a socket pair. */
static int lab_tun[2] = { -1, -1 };

struct lab {
	struct routes_file *file;
	struct counters_file *counters;
	struct thread_block *block;
	struct worker *w;
	void (*loop)(struct worker *w);
	pthread_t thread;
	int tun_outside; /* the test's end of the worker's TUN */
	int peer;
	uint16_t self_port;
};

static inline int udp_open(uint32_t address, uint16_t *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(address) };
	socklen_t bytes = sizeof a;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || getsockname(fd, (struct sockaddr *)&a, &bytes) < 0)
		abort();
	*port = ntohs(a.sin_port);
	return fd;
}

/* Loops for one direction each, without a worker for sparse flows. */
static inline void loop_tx(struct worker *w)
{
	struct tx *tx = calloc(1, sizeof *tx);

	tx_open(tx, w, NULL, false);
	loop_run(w, tx, NULL);
	free(tx);
}

static inline void loop_rx(struct worker *w)
{
	struct rx *rx = calloc(1, sizeof *rx);

	rx_open(rx, w, NULL, false);
	loop_run(w, NULL, rx);
	free(rx);
}

static inline void *lab_thread(void *argument)
{
	struct lab *l = argument;

	l->loop(l->w);
	return NULL;
}

static inline void lab_publish(struct lab *l, uint32_t generation, uint16_t peer_port)
{
	const struct fixture_route routes[] = {
		{ .network = ADDRESS(10, 5, 2, 0), .length = 24, .port = peer_port, .endpoint = PEER_IP },
		/* The kernel refuses a broadcast without SO_BROADCAST: this peer's packets end in EACCES. */
		{ .network = ADDRESS(10, 5, 3, 0), .length = 24, .port = peer_port, .endpoint = 0xffffffff },
	};
	fixture_pack(&l->file->slot[generation % 2], generation, routes, 2);
	atomic_store(&l->file->generation, generation);
}

static inline struct lab *lab_open(void (*loop)(struct worker *w))
{
	struct lab *l = calloc(1, sizeof *l);
	uint16_t peer_port;
	int pair[2];
	int buffer = 4 << 20;

	l->file = calloc(1, sizeof *l->file);
	l->counters = fixture_counters();
	l->block = &l->counters->thread[0];
	l->w = calloc(1, sizeof *l->w);
	l->loop = loop;
	if (lab_tun[0] < 0 ? socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0
			   : (pair[0] = dup(lab_tun[0])) < 0 || (pair[1] = dup(lab_tun[1])) < 0)
		abort();
	if (buffers_open(&l->w->buffers) != 0)
		abort();
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
	l->tun_outside = pair[0];
	l->peer = udp_open(PEER_IP, &peer_port);
	l->w->file = l->file;
	l->w->counters = l->counters;
	l->w->block = l->block;
	l->w->tun = pair[1];
	l->w->udp = udp_open(SELF_IP, &l->self_port);
	l->w->wake = eventfd(0, EFD_NONBLOCK);
	l->w->path_mtu = -1;
	l->w->limiter = calloc(1, sizeof *l->w->limiter);
	limiter_open(l->w->limiter);
	l->w->features = lab_features;
	setsockopt(l->w->udp, IPPROTO_UDP, UDP_GRO, &(int){ (lab_features & FEATURE(udp_gro)) != 0 }, sizeof(int));
	l->file->network = fixture_self.network;
	l->file->network_length = fixture_self.network_length;
	l->file->subnet = fixture_self.subnet;
	l->file->subnet_length = fixture_self.subnet_length;
	l->file->public_ip = SELF_IP;
	l->file->mtu = MTU;
	l->file->forward_until = UINT64_MAX;
	lab_publish(l, 1, peer_port);
	pthread_create(&l->thread, NULL, lab_thread, l);
	return l;
}

static inline void ring(struct lab *l)
{
	uint64_t one = 1;

	if (write(l->w->wake, &one, sizeof one) < 0)
		abort();
}

static inline void lab_close(struct lab *l)
{
	atomic_store(&l->file->drain, 1);
	ring(l);
	pthread_join(l->thread, NULL);
	close(l->tun_outside);
	close(l->peer);
	close(l->w->tun);
	close(l->w->udp);
	close(l->w->wake);
	free(l->file);
	fixture_counters_free(l->counters);
	free(l->w->limiter);
	free(l->w);
	free(l);
}

static inline uint64_t count(struct lab *l, enum counter c)
{
	return atomic_load(&l->block->counters[c]);
}

static inline uint64_t sum(struct lab *l, enum counter first, enum counter last)
{
	uint64_t total = 0;

	for (enum counter c = first; c <= last; c++)
		total += count(l, c);
	/* All of the received packets include those whose counters came later. */
	for (enum counter c = rx_bad_type; first == rx_ok && last == rx_error_tun && c <= rx_probe; c++)
		total += count(l, c);
	return total;
}

/* Waits until the counters from first to last have counted so many packets. */
static inline bool reaches(struct lab *l, enum counter first, enum counter last, uint64_t packets)
{
	for (int ms = 0; ms < WAIT_MS; ms++) {
		if (sum(l, first, last) >= packets)
			return sum(l, first, last) == packets;
		poll(NULL, 0, 1);
	}
	return false;
}

/* Reads one packet from a descriptor. Returns -1 if none comes for a while. */
static inline ssize_t take(int fd, uint8_t *bytes, size_t room)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, WAIT_MS) == 1 ? read(fd, bytes, room) : -1;
}

static inline void tun_put(struct lab *l, const struct recipe *r)
{
	static const uint8_t zero[VNET_HEADER_BYTES] = { 0 };
	uint8_t bytes[VNET_HEADER_BYTES + 2048];
	struct packet p = packet_make(bytes + VNET_HEADER_BYTES, r);

	memcpy(bytes, zero, sizeof zero);
	if (write(l->tun_outside, bytes, VNET_HEADER_BYTES + p.length) < 0)
		abort();
}

static inline void peer_send(struct lab *l, const void *bytes, size_t length)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(l->self_port), .sin_addr.s_addr = htonl(SELF_IP) };

	if (sendto(l->peer, bytes, length, 0, (struct sockaddr *)&to, sizeof to) < 0)
		abort();
}

/* Sends packets until one ends in the counter: the poll of before may still read the first one. */
static inline bool becomes(struct lab *l, enum counter wanted)
{
	const struct recipe r = { .source = OURS, .destination = THEIRS };
	uint64_t before = count(l, wanted);

	ring(l);
	for (int ms = 0; ms < WAIT_MS; ms++) {
		tun_put(l, &r);
		poll(NULL, 0, 1);
		if (count(l, wanted) > before)
			return true;
	}
	return false;
}

#endif
