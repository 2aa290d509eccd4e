/*
 * The outbound path, from the TUN to the underlay, in processing order:
 *
 *   TUN queue
 *      | read(2) a packet behind its virtio header                 TX_BUDGET times in one tx_poll()
 *      v
 *   tso_packet_read()        what the kernel left unfinished
 *      v
 *   forward_outbound()       the verdict --- DROP, REPLY_ICMP -->  one counter; icmp_reply_send() writes to the TUN
 *      | SEND_TO_PEER
 *      v
 *   add_packet()             finishes the checksum, or cuts a TSO packet into segments
 *      |                     <- a later version seals the packet here, between the verdict and the transmit batch
 *      v
 *   tx_batch_add()           joins packets of one length to one peer into a GSO run, which is one message
 *      v
 *   tx_flush()               at the end of the poll, and when there is no more room:
 *      | 1. control_poll_sparse()   sends what waits of sparse flows
 *      | 2. sendmmsg(2)             without UDP_SEGMENT again if that failed, and counts each packet
 *      v
 *   UDP socket
 *
 * Locks: a thread holds the lock of its own worker during a poll (loop.c). In tx_flush() the TX thread of a lane takes
 * the sparse worker's lock too. The sparse thread takes no second lock, so no two threads wait for each other.
 *
 * Sparse flows go first to keep the order of a flow that becomes bulk: its last packet in the sparse queue was there
 * before its first packet in the bulk queue, so it must be sent before anything that was read from the bulk queue.
 */
#include "tx.h"
#include "control.h"
#include "icmp-reply.h"
#include "path-mtu.h"
#include "tso-packet.h"
#include <errno.h>
#include <unistd.h>

/* Packets begin where a cache line does. */
#define ALIGNMENT 64u
#define READ_BYTES_MAX (VNET_HEADER_BYTES + DATAGRAM_BYTES_MAX)

static void handle_packet(struct tx *t, size_t bytes);
static void tx_flush(struct tx *t);

void tx_open(struct tx *t, struct worker *w, struct tx *sparse)
{
	*t = (struct tx){
		.worker = w,
		.sparse = sparse,
		.packets = buffers_packets(&w->buffers),
		.segments = buffers_segments(&w->buffers),
	};
}

/* Whether one more packet of any length may be read. Its segments may need a flush in between. */
static bool has_room(const struct tx *t)
{
	return tx_batch_has_room(&t->batch) && t->packets.room - t->packets.used >= READ_BYTES_MAX &&
	       t->segments.room - t->segments.used >= READ_BYTES_MAX;
}

enum progress tx_poll(struct tx *t)
{
	enum progress progress = PROGRESS_MORE;

	for (size_t i = 0; i < TX_BUDGET && progress == PROGRESS_MORE && has_room(t); i++) {
		ssize_t bytes = read(t->worker->tun, t->packets.bytes + t->packets.used, READ_BYTES_MAX);
		if (bytes > 0) {
			handle_packet(t, (size_t)bytes);
		} else {
			bool is_empty = i > 0 || (bytes < 0 && (errno == EAGAIN || errno == EINTR));
			progress = is_empty ? PROGRESS_NONE : PROGRESS_BROKEN;
		}
	}
	tx_flush(t);
	t->packets.used = 0;
	if (progress == PROGRESS_BROKEN)
		count_add(t->worker->block, tx_tun_errors, 1);
	return progress;
}

static bool may_use_gso(const struct worker *w, const struct peer_endpoint *endpoint)
{
	return (w->features & FEATURE(udp_segment)) != 0 && !gso_denied_has(&w->gso_denied, endpoint->address);
}

/* Adds the segments of a TSO packet. It may flush in between, which leaves the packet itself where it is. */
static void add_segments(struct tx *t, const struct tso_packet *tso, const struct packet *p, const struct outcome *out)
{
	for (size_t number = 0; number < tso->segments; number++) {
		struct arena *a = &t->segments;
		struct packet segment = { .bytes = a->bytes + a->used, .length = a->room - a->used };
		if (!tx_batch_has_room(&t->batch) || segment.length < tso->segment_bytes) {
			tx_flush(t);
			segment = (struct packet){ .bytes = a->bytes, .length = a->room };
		}
		if (!tso_packet_cut(tso, p, &out->header, number, &segment))
			continue; /* never happens, because the arena holds the longest packet */
		tx_batch_add(&t->batch, &out->endpoint, &segment, may_use_gso(t->worker, &out->endpoint));
		a->used += segment.length;
	}
}

static void add_packet(struct tx *t, const struct tso_packet *tso, struct packet *p, const struct outcome *out)
{
	if (!tso_packet_fits(tso, &out->header)) {
		count_add(t->worker->block, tx_bad_len, tso->segments);
		return;
	}
	if (tso->segment_bytes != 0) {
		add_segments(t, tso, p, out);
		return;
	}
	tso_packet_finish(tso, p, &out->header);
	tx_batch_add(&t->batch, &out->endpoint, p, may_use_gso(t->worker, &out->endpoint));
	t->packets.used += VNET_HEADER_BYTES + p->length;
	t->packets.used += -t->packets.used % ALIGNMENT;
}

/* Handles `bytes` that were read to the end of the arena of packets, virtio header included. */
static void handle_packet(struct tx *t, size_t bytes)
{
	struct worker *w = t->worker;
	uint8_t *start = t->packets.bytes + t->packets.used;
	struct packet p = { .bytes = start + VNET_HEADER_BYTES, .length = bytes - VNET_HEADER_BYTES };
	struct vnet_header vnet;
	struct tso_packet tso;
	struct outcome out;

	if (bytes < VNET_HEADER_BYTES) {
		count_add(w->block, tx_short, 1);
		return;
	}
	vnet_header_get(&vnet, start);
	if (!tso_packet_read(&tso, &vnet, &p)) {
		count_add(w->block, tx_bad_len, 1);
		return;
	}
	switch (forward_outbound(&p, tso.segment_bytes, &w->self, &w->routes, &out)) {
	case SEND_TO_PEER:
		add_packet(t, &tso, &p, &out); /* counted when it is sent */
		return;
	case REPLY_ICMP:
		if (icmp_reply_allow(w, &out.header))
			icmp_reply_send(w, &out.error, &p, &out.header);
		break;
	case WRITE_TO_TUN:
	case DROP:
		break;
	}
	count_add(w->block, out.counter, tso.segments);
}

static enum counter counter_of(int err)
{
	switch (err) {
	case EPERM:
	case EACCES:
		return tx_error_perm;
	case ENETUNREACH:
	case EHOSTUNREACH:
	case ENETDOWN:
	case EADDRNOTAVAIL:
	case EINVAL:
		return tx_error_unreach;
	case ENOBUFS:
	case ENOMEM:
	case EAGAIN:
		return tx_error_nobufs;
	case EMSGSIZE:
		return tx_error_msgsize;
	default:
		return tx_error_other;
	}
}

static void count_sent(struct worker *w, size_t packets, size_t bytes)
{
	count_add(w->block, tx_ok, packets);
	count_add(w->block, tx_bytes, bytes);
}

/* Tells the inner sender how long a packet the path carries, which is less than the MTU of the tunnel. */
static void report_path_mtu(struct worker *w, const struct peer_endpoint *endpoint, const struct packet *p)
{
	struct ipv4 h;

	if (ipv4_parse(p, &h) != IPV4_SOUND || !h.dont_fragment || !icmp_may_reply(p, &h) || !icmp_reply_allow(w, &h))
		return;
	uint16_t mtu = path_mtu_ask(w->path_mtu, endpoint->address, endpoint->port, p);
	struct icmp_error needed = {
		.type = ICMP_UNREACHABLE,
		.code = ICMP_CODE_FRAGMENTATION_NEEDED,
		.mtu = mtu != 0 ? mtu : icmp_smaller_mtu(p->length),
	};
	icmp_reply_send(w, &needed, p, &h);
}

/* Counts message `i`, which the kernel refused. */
static void count_failed(struct worker *w, const struct tx_batch *b, size_t i, int err)
{
	const struct gso_run *r = &b->gso_run[i];

	count_add(w->block, counter_of(err), r->packets);
	if (err != EMSGSIZE)
		return;
	const struct packet first = tx_batch_packet(b, i, 0);
	report_path_mtu(w, &r->endpoint, &first);
}

static int send_one(const struct worker *w, const struct tx_batch *b, size_t i, const struct packet *p)
{
	struct iovec iov = { .iov_base = p->bytes, .iov_len = p->length };
	struct mmsghdr m = {
		.msg_hdr = {
			.msg_name = b->message[i].msg_hdr.msg_name,
			.msg_namelen = b->message[i].msg_hdr.msg_namelen,
			.msg_iov = &iov,
			.msg_iovlen = 1,
		},
	};
	int sent;

	do
		sent = sendmmsg(w->udp, &m, 1, MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent == 1 ? 0 : sent == 0 ? EIO : errno;
}

/* Sends a run packet by packet. If the first packet, which is as long as any, passes now, UDP_SEGMENT was the cause. */
static void send_without_gso(struct worker *w, const struct tx_batch *b, size_t i)
{
	const struct gso_run *r = &b->gso_run[i];
	bool is_reported = false;

	for (size_t number = 0; number < r->packets; number++) {
		const struct packet p = tx_batch_packet(b, i, number);
		int err = send_one(w, b, i, &p);
		if (err == 0 && number == 0) {
			gso_denied_add(&w->gso_denied, r->endpoint.address);
			count_add(w->block, tx_gso_off, 1);
		}
		if (err == 0) {
			count_sent(w, 1, p.length);
			continue;
		}
		count_add(w->block, counter_of(err), 1);
		if (err == EMSGSIZE && !is_reported)
			report_path_mtu(w, &r->endpoint, &p);
		is_reported = is_reported || err == EMSGSIZE;
	}
}

static bool may_be_gso(const struct gso_run *r, int err)
{
	return r->packets > 1 && (err == EIO || err == EINVAL || err == EMSGSIZE);
}

/* Sends all messages with as few calls as possible and counts each packet. An error belongs to one message. */
static void send_batch(struct worker *w, struct tx_batch *b)
{
	size_t i = 0;

	tx_batch_finish(b);
	while (i < b->messages) {
		int sent = sendmmsg(w->udp, &b->message[i], (unsigned int)(b->messages - i), MSG_DONTWAIT);
		int err = sent > 0 ? 0 : sent == 0 ? EIO : errno;
		for (; sent > 0; sent--, i++)
			count_sent(w, b->gso_run[i].packets, b->gso_run[i].bytes);
		/* The error is that of the first message left. Each pass of this loop disposes of one at least. */
		if (err == 0 || err == EINTR)
			continue;
		if (may_be_gso(&b->gso_run[i], err))
			send_without_gso(w, b, i);
		else
			count_failed(w, b, i, err);
		i++;
	}
	tx_batch_clear(b);
}

static enum progress poll_sparse(void *tx)
{
	return tx_poll(tx);
}

static void tx_flush(struct tx *t)
{
	if (t->sparse != NULL)
		control_poll_sparse(t->sparse->worker, poll_sparse, t->sparse, SPARSE_BUDGET / TX_BUDGET);
	send_batch(t->worker, &t->batch);
	t->segments.used = 0;
}
