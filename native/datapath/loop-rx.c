/*
 * Underlay -> TUN: one recvmmsg(2) for a batch of datagrams, each of which may be several that the kernel has put
 * together (UDP_GRO); a decision about each packet as if it had come alone; packets that pass are merged per flow and
 * written. A datagram gives at most one packet, and never an answer.
 */
#include "coalesce.h"
#include "tun.h"
#include "turn.h"
#include "wait.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>

/* Errors in a row, with no datagram between them, that are taken for a broken socket and not for one peer's trouble. */
#define ERRORS_IN_A_ROW 8

union control {
	uint8_t space[CMSG_SPACE(sizeof(int))];
	struct cmsghdr aligned;
};

struct incoming {
	struct coalescer coalescer;
	struct sockaddr_in from[BATCH_PLACES];
	struct iovec iov[BATCH_PLACES];
	union control control[BATCH_PLACES];
	struct mmsghdr message[BATCH_PLACES];
};

/* The kernel's answer goes where the question stood: what it wrote last time is put right. */
static void prepare(struct incoming *in, size_t used)
{
	for (size_t i = 0; i < used; i++) {
		struct msghdr *m = &in->message[i].msg_hdr;
		m->msg_namelen = sizeof in->from[i];
		m->msg_controllen = sizeof in->control[i];
		m->msg_flags = 0;
	}
}

static void write_out(void *context, struct burst *b)
{
	struct worker *w = context;

	switch (tun_write_pieces(w->tun, &b->vnet, b->piece, b->pieces, b->bytes)) {
	case TUN_REFUSED_HEADER:
		counters_add(w->block, rx_gso, b->segments);
		return;
	case TUN_FAILED:
		counters_add(w->block, rx_error_tun, b->segments);
		return;
	case TUN_WRITTEN:
		break;
	}
	counters_add(w->block, rx_bytes, b->received_bytes);
	counters_add(w->block, rx_trimmed, b->trimmed);
	counters_add(w->block, rx_opts, b->options);
	counters_add(w->block, rx_port, b->strange_ports);
	/* Last: who waits for a packet in the counters finds all about it. */
	counters_add(w->block, rx_ok, b->segments);
}

static void open_incoming(struct incoming *in, struct worker *w)
{
	memset(in, 0, sizeof *in);
	in->coalescer.write = write_out;
	in->coalescer.context = w;
	in->coalescer.merges_udp = (w->features & FEATURE(tun_uso)) != 0;
	for (size_t i = 0; i < BATCH_PLACES; i++) {
		in->iov[i] = (struct iovec){ .iov_base = batch_place(&w->batch, i), .iov_len = BATCH_PACKET_BYTES };
		in->message[i].msg_hdr = (struct msghdr){
			.msg_name = &in->from[i],
			.msg_iov = &in->iov[i],
			.msg_iovlen = 1,
			.msg_control = &in->control[i],
		};
	}
	prepare(in, BATCH_PLACES);
}

/* How long each datagram was that the kernel put into this one; 0 when it came alone. */
static size_t merged_bytes(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
		int bytes;
		if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO || c->cmsg_len < CMSG_LEN(sizeof bytes))
			continue;
		memcpy(&bytes, CMSG_DATA(c), sizeof bytes);
		return bytes > 0 ? (size_t)bytes : 0;
	}
	return 0;
}

static void handle(struct worker *w, struct incoming *in, struct packet *p, const struct outer *outer)
{
	struct outcome out;

	if (forward_inbound(p, outer, &w->self, &w->routes, &out) != WRITE_TO_TUN) {
		counters_add(w->block, out.counter, 1);
		return;
	}
	const struct beside beside = {
		.trimmed = out.trimmed,
		.options = out.options,
		.strange_port = out.strange_port,
	};
	coalesce_add(&in->coalescer, p, &out.header, outer->source, &beside);
}

static void handle_message(struct worker *w, struct incoming *in, size_t i)
{
	struct mmsghdr *m = &in->message[i];
	const struct outer outer = {
		.source = ntohl(in->from[i].sin_addr.s_addr),
		.port = ntohs(in->from[i].sin_port),
		.truncated = (m->msg_hdr.msg_flags & MSG_TRUNC) != 0,
	};
	size_t step = merged_bytes(&m->msg_hdr);
	uint8_t *bytes = in->iov[i].iov_base;
	size_t left = m->msg_len;

	do {
		size_t length = step == 0 || left < step ? left : step;
		struct packet p = { .bytes = bytes, .length = length };
		handle(w, in, &p, &outer);
		bytes += length;
		left -= length;
	} while (left > 0);
}

/* Receives and handles a batch; returns its size, or -1 on an error of the socket. */
static int receive_batch(struct worker *w, struct incoming *in)
{
	int count = recvmmsg(w->udp, in->message, BATCH_PLACES, MSG_DONTWAIT, NULL);

	if (count < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	for (size_t i = 0; i < (size_t)count; i++)
		handle_message(w, in, i);
	/* Nothing waits for packets that may never come, and the places are free again. */
	coalesce_flush(&in->coalescer);
	prepare(in, (size_t)count);
	return count;
}

void loop_rx(struct worker *w)
{
	struct incoming in;
	unsigned int errors = 0;
	enum turn turn;

	open_incoming(&in, w);
	while ((turn = turn_begin(w)) != TURN_STOP) {
		if (turn == TURN_PARKED) {
			wait_for(-1, w->wake, IDLE_MS);
			continue;
		}
		int count = receive_batch(w, &in);
		if (count >= 0) {
			errors = 0;
			/* WAIT_BROKEN is a pending error: the next receive reports and clears it. */
			if (count < (int)BATCH_PLACES)
				wait_for(w->udp, w->wake, IDLE_MS);
			continue;
		}
		counters_add(w->block, rx_socket_errors, 1);
		if (++errors >= ERRORS_IN_A_ROW)
			wait_for(-1, w->wake, BROKEN_MS);
	}
}
