/*
 * The inbound path, from the underlay to the TUN, in processing order:
 *
 *   UDP socket
 *      | recvmmsg(2) up to RX_BUDGET messages                      one rx_poll()
 *      v
 *   turns_wait()             a lane waits for what came earlier to the socket of sparse flows
 *      v
 *   handle_message()         cuts a message that the kernel merged (UDP_GRO) into its datagrams
 *      |                     <- a later version opens the packet here, before the verdict and before coalescing
 *      v
 *   forward_inbound()        the verdict --- DROP, TAKE_PROBE -->  one counter; prober_take() answers a question
 *      | WRITE_TO_TUN
 *      v
 *   coalesce_add()           merges packets of one flow that follow each other into a GRO packet
 *      v
 *   coalesce_flush()         at the end of the poll
 *      v
 *   write_packet()           writev(2), of each packet alone if the kernel refuses the merged one; counts each packet
 *      v
 *   TUN queue
 *
 * The reason why sparse flows go first is that of tx.c.
 */
#include "rx.h"
#include "peer-traffic.h"
#include "prober.h"
#include "strangers.h"
#include "tso-packet.h"
#include "tun.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>

/* So many errors in a row, without a datagram between them, mean a broken socket; fewer may come from one peer. */
#define ERRORS_IN_A_ROW 8

/* Sets lengths and flags of messages again, which recvmmsg(2) reads and overwrites. */
static void reset_messages(struct rx *r, size_t used)
{
	for (size_t i = 0; i < used; i++) {
		struct msghdr *m = &r->message[i].msg_hdr;
		m->msg_namelen = sizeof r->from[i];
		m->msg_controllen = sizeof r->control[i];
		m->msg_flags = 0;
	}
}

/* Counts packets of a GRO packet that were written, with what is counted beside. */
static void count_written(struct worker *w, const struct gro_packet *g, size_t packets)
{
	count_add(w->block, rx_bytes, g->received_bytes * packets / g->segments);
	count_add(w->block, rx_trimmed, g->trimmed);
	count_add(w->block, rx_opts, g->options);
	count_add(w->block, rx_port, g->unexpected_ports);
	/* This comes last: whoever waits for a packet in rx_ok finds its other counters complete. */
	count_add(w->block, rx_ok, packets);
}

/* Cuts a GRO packet that the kernel refused into what was merged, and writes each packet. */
static void write_singly(struct worker *w, const struct gro_packet *g)
{
	struct packet whole = { .bytes = buffers_whole(&w->buffers) };
	struct tso_packet tso;
	struct ipv4 h;
	size_t written = 0;

	for (size_t i = 1; i < g->iovs && whole.length + g->iov[i].iov_len <= DATAGRAM_BYTES_MAX; i++) {
		memcpy(whole.bytes + whole.length, g->iov[i].iov_base, g->iov[i].iov_len);
		whole.length += g->iov[i].iov_len;
	}
	bool is_sound = tso_packet_read(&tso, &g->vnet, &whole) && ipv4_parse(&whole, &h) == IPV4_SOUND;
	for (size_t i = 0; is_sound && i < g->segments; i++) {
		struct packet one = { .bytes = buffers_fragment(&w->buffers), .length = DATAGRAM_BYTES_MAX };
		if (tso_packet_cut(&tso, &whole, &h, i, &one) && tun_write(w->tun, &one) == TUN_WRITTEN)
			written++;
	}
	count_add(w->block, rx_error_tun, g->segments - written);
	if (written > 0)
		count_written(w, g, written);
}

static void write_packet(void *context, struct gro_packet *g)
{
	struct worker *w = context;

	switch (tun_write_iov(w->tun, &g->vnet, g->iov, g->iovs, g->bytes)) {
	case TUN_REFUSED_HEADER:
		count_add(w->block, rx_gso, g->segments);
		return;
	case TUN_FAILED:
		if (g->segments > 1) {
			write_singly(w, g);
			return;
		}
		/* fall through */
	case TUN_BROKEN:
		count_add(w->block, rx_error_tun, g->segments);
		return;
	case TUN_WRITTEN:
		count_written(w, g, g->segments);
	}
}

void rx_open(struct rx *r, struct worker *w, struct turns *turns, bool is_sparse)
{
	memset(r, 0, sizeof *r);
	r->worker = w;
	r->turns = turns;
	r->is_sparse = is_sparse;
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

/* The length of the datagrams that the kernel merged into this message; 0 if it is a single one. */
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

static void note_run(struct worker *w, struct peer_run *run, const struct outer *outer)
{
	if (run->packets > 0 &&
	    peer_traffic_received(w->counters, &w->routes, run, outer->source, outer->port, w->now_ns))
		prober_activate(w, run->peer);
	*run = (struct peer_run){ 0 };
}

static bool is_lane_port(struct worker *w, uint32_t sender, uint16_t port)
{
	const struct peer_block *b = peer_blocks_of(w->counters, &w->routes, sender);

	return b != NULL && peer_traffic_knows_port(b, port);
}

/* Each packet of a message that passes lengthens the run; one of another peer ends it first. */
static void handle_packet(struct rx *r, struct packet *p, const struct outer *outer, struct peer_run *run)
{
	struct worker *w = r->worker;
	struct outcome out;

	switch (forward_inbound(p, outer, &w->self, &w->routes, &out)) {
	case WRITE_TO_TUN:
		if (out.notes.unexpected_port)
			out.notes.unexpected_port = !is_lane_port(w, out.sender, outer->port);
		if (run->packets > 0 && run->peer != out.sender)
			note_run(w, run, outer);
		*run = (struct peer_run){
			.peer = out.sender,
			.packets = run->packets + 1,
			.bytes = run->bytes + p->length,
		};
		coalesce_add(&r->coalescer, p, &out.header, outer->source, &out.notes);
		return;
	case TAKE_PROBE:
		prober_take(w, p, outer, out.sender);
		break;
	case SEND_TO_PEER:
	case REPLY_ICMP:
	case DROP:
		/* Our own address is in a lease, our own. */
		if (out.counter == rx_not_member && outer->source != w->self.public_ip)
			strangers_note(w->counters, outer->source, w->now_ns);
	}
	count_add(w->block, out.counter, 1);
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
	struct peer_run run = { 0 };

	do {
		size_t length = step == 0 || left < step ? left : step;
		struct packet p = { .bytes = bytes, .length = length };
		handle_packet(r, &p, &outer, &run);
		bytes += length;
		left -= length;
	} while (left > 0);
	note_run(r->worker, &run, &outer);
}

static enum progress count_error(struct rx *r)
{
	count_add(r->worker->block, rx_socket_errors, 1);
	return ++r->errors < ERRORS_IN_A_ROW ? PROGRESS_MORE : PROGRESS_BROKEN;
}

enum progress rx_poll(struct rx *r)
{
	if (r->is_sparse)
		turns_begin(r->turns);
	int count = recvmmsg(r->worker->udp, r->message, RX_BUDGET, MSG_DONTWAIT, NULL);
	int err = count < 0 ? errno : 0;

	if (!r->is_sparse && count > 0)
		turns_wait(r->turns);
	for (size_t i = 0; count > 0 && i < (size_t)count; i++)
		handle_message(r, i);
	/* No packet is kept waiting for one that may never come. The buffers are free again. */
	coalesce_flush(&r->coalescer);
	if (r->is_sparse)
		turns_end(r->turns, count < (int)RX_BUDGET);
	if (count < 0)
		return err == EAGAIN || err == EINTR ? PROGRESS_NONE : count_error(r);
	r->errors = 0;
	reset_messages(r, (size_t)count);
	return (size_t)count < RX_BUDGET ? PROGRESS_NONE : PROGRESS_MORE;
}
