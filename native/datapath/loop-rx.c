/*
 * Underlay -> TUN: one recvmmsg(2) for a batch, a decision about each datagram, one write(2) for each that passes. A
 * datagram gives at most one packet, and never an answer.
 */
#include "tun.h"
#include "turn.h"
#include "wait.h"
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Errors in a row, with no datagram between them, that are taken for a broken socket and not for one peer's trouble. */
#define ERRORS_IN_A_ROW 8

struct incoming {
	size_t used;  /* places that the last receive wrote to */
	uint32_t mtu; /* that all places are made for */
	struct sockaddr_in from[BATCH_PACKETS];
	struct iovec iov[BATCH_PACKETS];
	struct mmsghdr message[BATCH_PACKETS];
};

static void prepare(const struct worker *w, struct incoming *in)
{
	/* One byte more than may pass: enough to see that a datagram is too long. */
	size_t room = (size_t)w->self.mtu + 1;
	size_t stale = in->mtu == w->self.mtu ? in->used : BATCH_PACKETS;

	in->mtu = w->self.mtu;
	in->used = 0;
	for (size_t i = 0; i < stale; i++) {
		in->iov[i] = (struct iovec){
			.iov_base = batch_packet(&w->batch, i),
			.iov_len = room < BATCH_PACKET_BYTES ? room : BATCH_PACKET_BYTES,
		};
		in->message[i].msg_hdr = (struct msghdr){
			.msg_name = &in->from[i],
			.msg_namelen = sizeof in->from[i],
			.msg_iov = &in->iov[i],
			.msg_iovlen = 1,
		};
	}
}

static enum counter deliver(struct worker *w, const struct packet *p, const struct outcome *out)
{
	switch (tun_write(w->tun, p)) {
	case TUN_REFUSED_HEADER:
		return rx_gso;
	case TUN_FAILED:
		return rx_error_tun;
	case TUN_WRITTEN:
		break;
	}
	counters_add(w->block, rx_bytes, p->length);
	if (out->trimmed)
		counters_add(w->block, rx_trimmed, 1);
	if (out->options)
		counters_add(w->block, rx_opts, 1);
	if (out->strange_port)
		counters_add(w->block, rx_port, 1);
	return rx_ok;
}

static void handle(struct worker *w, const struct incoming *in, size_t i)
{
	const struct mmsghdr *m = &in->message[i];
	const struct outer outer = {
		.source = ntohl(in->from[i].sin_addr.s_addr),
		.port = ntohs(in->from[i].sin_port),
		.truncated = (m->msg_hdr.msg_flags & MSG_TRUNC) != 0,
	};
	struct packet p = { .bytes = batch_packet(&w->batch, i), .length = m->msg_len };
	struct outcome out;
	enum counter why;

	if (forward_inbound(&p, &outer, &w->self, &w->routes, &out) == WRITE_TO_TUN)
		why = deliver(w, &p, &out);
	else
		why = out.counter;
	counters_add(w->block, why, 1);
}

/* Receives and handles a batch; returns its size, or -1 on an error of the socket. */
static int receive_batch(struct worker *w, struct incoming *in)
{
	prepare(w, in);
	int count = recvmmsg(w->udp, in->message, BATCH_PACKETS, MSG_DONTWAIT, NULL);
	if (count < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	in->used = (size_t)count;
	for (size_t i = 0; i < in->used; i++)
		handle(w, in, i);
	return count;
}

void loop_rx(struct worker *w)
{
	struct incoming in;
	unsigned int errors = 0;
	enum turn turn;

	memset(&in, 0, sizeof in);
	while ((turn = turn_begin(w)) != TURN_STOP) {
		if (turn == TURN_PARKED) {
			wait_for(-1, w->wake, IDLE_MS);
			continue;
		}
		int count = receive_batch(w, &in);
		if (count >= 0) {
			errors = 0;
			/* WAIT_BROKEN is a pending error: the next receive reports and clears it. */
			if (count < (int)BATCH_PACKETS)
				wait_for(w->udp, w->wake, IDLE_MS);
			continue;
		}
		counters_add(w->block, rx_socket_errors, 1);
		if (++errors >= ERRORS_IN_A_ROW)
			wait_for(-1, w->wake, BROKEN_MS);
	}
}
