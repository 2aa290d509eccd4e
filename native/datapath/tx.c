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
 *   add_packet()             finishes the checksum, or cuts a TSO packet into segments, or a packet without DF into
 *      |                     fragments of the peer's learnt path MTU
 *      |                     <- a later version seals the packet here, between the verdict and the transmit batch
 *      v
 *   tx_batch_add()           joins packets of one length to one peer into a GSO run, which is one message
 *      v
 *   tx_flush()               at the end of the poll, and when there is no more room:
 *      | 1. turns_wait()            a lane waits for what came earlier to the sparse queue
 *      | 2. tx_send()               sendmmsg(2); what is refused is tried again in another form (tx-send.c)
 *      v
 *   UDP socket
 *
 * Sparse flows go first to keep the order of a flow that becomes bulk or dense: its last packet in the sparse queue was
 * there before its first packet in the other queue, so it must be sent before anything that was read from that one.
 */
#include "tx.h"
#include "fragment.h"
#include "icmp-reply.h"
#include "peer-blocks.h"
#include "tso-packet.h"
#include "tun.h"
#include "tx-send.h"
#include <errno.h>
#include <unistd.h>

/* Packets begin where a cache line does. */
#define ALIGNMENT 64u
#define READ_BYTES_MAX (VNET_HEADER_BYTES + DATAGRAM_BYTES_MAX)

static void handle_packet(struct tx *t, size_t bytes);
static void tx_flush(struct tx *t);

void tx_open(struct tx *t, struct worker *w, struct turns *turns, bool is_sparse)
{
	*t = (struct tx){
		.worker = w,
		.turns = turns,
		.is_sparse = is_sparse,
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

/* What a read that gave no packet says. */
static enum progress progress_after(ssize_t bytes)
{
	if (bytes == 0 || tun_is_broken(errno))
		return PROGRESS_BROKEN;
	return errno == EAGAIN || errno == EINTR ? PROGRESS_NONE : PROGRESS_MORE;
}

enum progress tx_poll(struct tx *t)
{
	enum progress progress = PROGRESS_MORE;
	size_t errors = 0;

	if (t->is_sparse)
		turns_begin(t->turns);
	for (size_t i = 0; i < TX_BUDGET && progress == PROGRESS_MORE && has_room(t); i++) {
		ssize_t bytes = read(t->worker->tun, t->packets.bytes + t->packets.used, READ_BYTES_MAX);
		if (bytes > 0) {
			handle_packet(t, (size_t)bytes);
			continue;
		}
		progress = progress_after(bytes);
		errors += progress == PROGRESS_NONE ? 0 : 1;
	}
	tx_flush(t);
	if (t->is_sparse)
		turns_end(t->turns, progress == PROGRESS_NONE);
	t->packets.used = 0;
	count_add(t->worker->block, tx_tun_errors, errors);
	/* An error of one packet costs that packet. When there is nothing but errors, the thread must not spin. */
	return errors == TX_BUDGET ? PROGRESS_BROKEN : progress;
}

static bool may_use_gso(const struct worker *w, const struct peer_endpoint *endpoint)
{
	return (w->features & FEATURE(udp_segment)) != 0 &&
	       !gso_denied_has(&w->gso_denied, endpoint->address, w->now_ns);
}

/* The longest packet that may go to the peer in one piece. One with DF is not cut: the underlay refuses it. */
static size_t longest_piece(const struct worker *w, const struct outcome *out)
{
	if (out->header.dont_fragment)
		return IPV4_BYTES_MAX;
	size_t path = peer_blocks_path_mtu(w->counters, &w->routes, out->endpoint.peer, w->now_ns);
	return path < w->self.mtu ? path : w->self.mtu;
}

/*
 * What is too long for the kernel engine by the learnt path comes to us. If it fits our shorter header it is answered
 * nevertheless, and not sent: its sender would go on so (forward.c). The underlay refuses what is longer.
 */
static enum verdict judge_path(const struct worker *w, struct packet *p, size_t segment_bytes, struct outcome *out)
{
	const size_t extra = peer_blocks_extra(&w->routes, out->endpoint.peer);
	const size_t bytes = segment_bytes == 0 ? p->length : segment_bytes;

	if (extra == 0 || !out->header.dont_fragment)
		return SEND_TO_PEER;
	size_t path = peer_blocks_path_mtu(w->counters, &w->routes, out->endpoint.peer, w->now_ns);
	if (bytes > path || bytes + extra <= path)
		return SEND_TO_PEER;
	return forward_refuse_size(p, path - extra, &w->self, NULL, out);
}

/* Room for a packet of `bytes` in the batch. It may flush, which leaves the packet that is being cut where it is. */
static struct packet take_room(struct tx *t, size_t bytes)
{
	struct arena *a = &t->segments;

	if (!tx_batch_has_room(&t->batch) || a->room - a->used < bytes)
		tx_flush(t);
	return (struct packet){ .bytes = a->bytes + a->used, .length = a->room - a->used };
}

static void add_piece(struct tx *t, const struct outcome *out, const struct packet *piece)
{
	tx_batch_add(&t->batch, &out->endpoint, piece, may_use_gso(t->worker, &out->endpoint));
	t->segments.used += piece->length;
}

static void add_fragments(struct tx *t, const struct packet *p, const struct outcome *out, size_t longest)
{
	const size_t payload = p->length - out->header.header_bytes;

	for (size_t from = 0, bytes; from < payload; from += bytes) {
		struct packet fragment = take_room(t, longest);
		bytes = fragment_write(p, &out->header, longest, from, &fragment);
		if (bytes == 0)
			return; /* never happens, because the arena holds the longest packet, and `longest` any header */
		add_piece(t, out, &fragment);
	}
}

/* Adds the segments of a TSO packet. */
static void add_segments(struct tx *t, const struct tso_packet *tso, const struct packet *p, const struct outcome *out,
			 size_t longest)
{
	for (size_t number = 0; number < tso->segments; number++) {
		const bool is_cut_again = tso->segment_bytes > longest;
		struct packet segment = { .bytes = buffers_whole(&t->worker->buffers), .length = DATAGRAM_BYTES_MAX };
		if (!is_cut_again)
			segment = take_room(t, tso->segment_bytes);
		if (!tso_packet_cut(tso, p, &out->header, number, &segment))
			continue; /* never happens, because either place holds the longest packet */
		if (is_cut_again)
			add_fragments(t, &segment, out, longest);
		else
			add_piece(t, out, &segment);
	}
}

static void add_packet(struct tx *t, struct tso_packet *tso, struct packet *p, const struct outcome *out)
{
	const size_t longest = longest_piece(t->worker, out);
	const bool is_long = (tso->segment_bytes != 0 ? tso->segment_bytes : p->length) > longest;

	if (!tso_packet_fits(tso, &out->header) || (is_long && ipv4_fragment_impossible(&out->header))) {
		count_add(t->worker->block, tx_bad_len, tso->segments);
		return;
	}
	if (tso->segment_bytes != 0) {
		tso_packet_shorten(tso, p, longest);
		add_segments(t, tso, p, out, longest);
		return;
	}
	tso_packet_finish(tso, p, &out->header);
	if (is_long) {
		add_fragments(t, p, out, longest);
		return;
	}
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
	enum verdict verdict = forward_outbound(&p, tso.segment_bytes, &w->self, &w->routes, &out);
	if (verdict == SEND_TO_PEER)
		verdict = judge_path(w, &p, tso.segment_bytes, &out);
	if (verdict == SEND_TO_PEER) {
		add_packet(t, &tso, &p, &out); /* counted when it is sent */
		return;
	}
	/* Who hears the answer finds it counted. */
	count_add(w->block, out.counter, tso.segments);
	if (verdict == REPLY_ICMP && icmp_reply_allow(w, &out.header))
		icmp_reply_send(w, &out.error, &p, &out.header);
}

static void tx_flush(struct tx *t)
{
	if (!t->is_sparse && t->batch.messages > 0)
		turns_wait(t->turns);
	tx_send(t->worker, &t->batch);
	t->segments.used = 0;
}
