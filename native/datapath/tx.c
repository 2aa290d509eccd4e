/* From the TUN to the underlay; see tx.h. */
#include "tx.h"
#include "icmp-reply.h"
#include "tso-packet.h"
#include "sending.h"
#include "control.h"
#include <errno.h>
#include <unistd.h>

/* Packets begin where a cache line does. */
#define ALIGNMENT 64u
#define READ_BYTES_MAX (VNET_HEADER_BYTES + DATAGRAM_BYTES_MAX)


/* Keeps the order of a flow that becomes bulk: its packets in the sparse queue are older than those in this queue. */
static void serve_sparse(struct tx *sparse)
{
	struct worker *w = sparse->worker;

	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < SPARSE_BUDGET / TX_BUDGET && control_poll(w) == CONTROL_FORWARD; i++)
		if (tx_poll(sparse) != PROGRESS_MORE)
			break;
	pthread_mutex_unlock(&w->lock);
}

static void send_all(struct tx *t)
{
	if (t->sparse != NULL)
		serve_sparse(t->sparse);
	tx_flush(t->worker, &t->batch);
	t->segments.used = 0;
}

static bool may_use_gso(const struct worker *w, const struct peer_endpoint *endpoint)
{
	return (w->features & FEATURE(udp_segment)) != 0 && !gso_denied_has(&w->gso_denied, endpoint->address);
}

/* Adds the segments of a TSO packet. It may flush in between: the arena of `p` is not emptied by that. */
static void add_segments(struct tx *t, const struct tso_packet *s, const struct packet *p, const struct outcome *out)
{
	for (size_t number = 0; number < s->segments; number++) {
		struct arena *a = &t->segments;
		struct packet segment = { .bytes = a->bytes + a->used, .length = a->room - a->used };
		if (!tx_batch_has_room(&t->batch) || segment.length < s->segment_bytes) {
			send_all(t);
			segment = (struct packet){ .bytes = a->bytes, .length = a->room };
		}
		if (!tso_packet_cut(s, p, &out->header, number, &segment))
			continue; /* not with a room that holds the longest packet */
		tx_batch_add(&t->batch, &out->endpoint, &segment, may_use_gso(t->worker, &out->endpoint));
		a->used += segment.length;
	}
}

static void add_packet(struct tx *t, const struct tso_packet *s, struct packet *p, const struct outcome *out)
{
	if (!tso_packet_fits(s, &out->header)) {
		count_add(t->worker->block, tx_bad_len, s->segments);
		return;
	}
	if (s->segment_bytes != 0) {
		add_segments(t, s, p, out);
		return;
	}
	tso_packet_finish(s, p, &out->header);
	tx_batch_add(&t->batch, &out->endpoint, p, may_use_gso(t->worker, &out->endpoint));
	t->packets.used += VNET_HEADER_BYTES + p->length;
	t->packets.used += -t->packets.used % ALIGNMENT;
}

/* `bytes` were read to the end of the arena of packets, virtio header included. */
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
	switch (forward_outbound_tso(&p, tso.segment_bytes, &w->self, &w->routes, &out)) {
	case SEND_TO_PEER:
		add_packet(t, &tso, &p, &out); /* counted when it was sent */
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

void tx_open(struct tx *t, struct worker *w, struct tx *sparse)
{
	*t = (struct tx){
		.worker = w,
		.sparse = sparse,
		.packets = buffers_packets(&w->buffers),
		.segments = buffers_segments(&w->buffers),
	};
}

/* For one more packet of any length; what is cut of it may still have to be sent in between. */
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
	send_all(t);
	t->packets.used = 0;
	if (progress == PROGRESS_BROKEN)
		count_add(t->worker->block, tx_tun_errors, 1);
	return progress;
}
