/* From the underlay to the TUN; see rx.h. */
#include "rx.h"
#include "tun.h"
#include "control.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>

/* Errors in a row, with no datagram between them, that are taken for a broken socket and not for one peer's trouble. */
#define ERRORS_IN_A_ROW 8

/* Restores the lengths and flags of messages, which recvmmsg(2) reads and overwrites. */
static void reset_messages(struct rx *r, size_t used)
{
	for (size_t i = 0; i < used; i++) {
		struct msghdr *m = &r->message[i].msg_hdr;
		m->msg_namelen = sizeof r->from[i];
		m->msg_controllen = sizeof r->control[i];
		m->msg_flags = 0;
	}
}

static void write_packet(void *context, struct gro_packet *g)
{
	struct worker *w = context;

	switch (tun_write_iov(w->tun, &g->vnet, g->iov, g->iovs, g->bytes)) {
	case TUN_REFUSED_HEADER:
		count_add(w->block, rx_gso, g->segments);
		return;
	case TUN_FAILED:
		count_add(w->block, rx_error_tun, g->segments);
		return;
	case TUN_WRITTEN:
		break;
	}
	count_add(w->block, rx_bytes, g->received_bytes);
	count_add(w->block, rx_trimmed, g->trimmed);
	count_add(w->block, rx_opts, g->options);
	count_add(w->block, rx_port, g->unexpected_ports);
	/* Last: who waits for a packet in the counters finds all about it. */
	count_add(w->block, rx_ok, g->segments);
}

void rx_open(struct rx *r, struct worker *w, struct rx *sparse)
{
	memset(r, 0, sizeof *r);
	r->worker = w;
	r->sparse = sparse;
	r->coalescer.write = write_packet;
	r->coalescer.context = w;
	r->coalescer.merges_udp = (w->features & FEATURE(tun_uso)) != 0;
	for (size_t i = 0; i < RX_BUDGET; i++) {
		r->iov[i].iov_base = buffers_datagram(&w->buffers, i);
		r->iov[i].iov_len = DATAGRAM_BYTES_MAX;
		r->message[i].msg_hdr = (struct msghdr){
			.msg_name = &r->from[i],
			.msg_iov = &r->iov[i],
			.msg_iovlen = 1,
			.msg_control = &r->control[i],
		};
	}
	reset_messages(r, RX_BUDGET);
}

/* How long each datagram was that the kernel put into this one; 0 when it came alone. */
static size_t gro_size(struct msghdr *m)
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

static void handle_packet(struct rx *r, struct packet *p, const struct outer *outer)
{
	struct worker *w = r->worker;
	struct outcome out;

	if (forward_inbound(p, outer, &w->self, &w->routes, &out) != WRITE_TO_TUN) {
		count_add(w->block, out.counter, 1);
		return;
	}
	const struct notes notes = {
		.trimmed = out.trimmed,
		.options = out.options,
		.unexpected_port = out.unexpected_port,
	};
	coalesce_add(&r->coalescer, p, &out.header, outer->source, &notes);
}

static void handle_message(struct rx *r, size_t i)
{
	struct mmsghdr *m = &r->message[i];
	const struct outer outer = {
		.source = ntohl(r->from[i].sin_addr.s_addr),
		.port = ntohs(r->from[i].sin_port),
		.truncated = (m->msg_hdr.msg_flags & MSG_TRUNC) != 0,
	};
	size_t step = gro_size(&m->msg_hdr);
	uint8_t *bytes = r->iov[i].iov_base;
	size_t left = m->msg_len;

	do {
		size_t length = step == 0 || left < step ? left : step;
		struct packet p = { .bytes = bytes, .length = length };
		handle_packet(r, &p, &outer);
		bytes += length;
		left -= length;
	} while (left > 0);
}

static void serve_sparse(struct rx *sparse)
{
	struct worker *w = sparse->worker;

	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < SPARSE_BUDGET / RX_BUDGET && control_poll(w) == CONTROL_FORWARD; i++)
		if (rx_poll(sparse) != PROGRESS_MORE)
			break;
	pthread_mutex_unlock(&w->lock);
}

static enum progress count_error(struct rx *r)
{
	count_add(r->worker->block, rx_socket_errors, 1);
	return ++r->errors < ERRORS_IN_A_ROW ? PROGRESS_MORE : PROGRESS_BROKEN;
}

enum progress rx_poll(struct rx *r)
{
	int count = recvmmsg(r->worker->udp, r->message, RX_BUDGET, MSG_DONTWAIT, NULL);
	int err = count < 0 ? errno : 0;

	if (r->sparse != NULL)
		serve_sparse(r->sparse);
	if (count < 0)
		return err == EAGAIN || err == EINTR ? PROGRESS_NONE : count_error(r);
	r->errors = 0;
	for (size_t i = 0; i < (size_t)count; i++)
		handle_message(r, i);
	/* No packet waits for one that may never come, and the buffers are free again. */
	coalesce_flush(&r->coalescer);
	reset_messages(r, (size_t)count);
	return (size_t)count < RX_BUDGET ? PROGRESS_NONE : PROGRESS_MORE;
}
